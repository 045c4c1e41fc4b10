from fastai_labelsmooth.eps import *
from fastai_labelsmooth.targets import *
from fastai_labelsmooth.losses import *
from fastai_labelsmooth.tasks import *
from fastai_labelsmooth.smoothers.core import *
from fastai_labelsmooth.callback import *
from fastai_labelsmooth.smoothers.noise import *
