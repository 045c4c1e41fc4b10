"Label smoothing for fastai as a callback."
__version__ = "0.1.0"
