"""Performance: FLOPs, memory and collectives counted from a program; speed and profiles measured."""
