"""Frozen diffusion models behind one class (``priors.prior.Prior``); ``loading.load_prior`` is the one way to get one."""
