"""Settings: typed (``config``), as a list (``catalogue``), by name and as text (``names``), checked and put together
(``building``), as pages (``presets``), as options of a command line (``options``)."""
