"""Settings: typed (``config``), by dotted name (``names``), as pages (``presets``), as options of a command line."""
