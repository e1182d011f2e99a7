"""What families share when they are converted: tables of layouts, entries of a published config.json."""
