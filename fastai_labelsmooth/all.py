from fastai_labelsmooth.targets import *
from fastai_labelsmooth.losses import *
from fastai_labelsmooth.callback import *
from fastai_labelsmooth.interpret import *
