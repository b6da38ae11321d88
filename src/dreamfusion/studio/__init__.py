"""A web page on this machine that makes, watches and keeps assets (``pip install 'dreamfusion[studio]'``)."""
