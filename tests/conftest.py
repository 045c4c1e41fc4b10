import warnings
import matplotlib, pytest, torch
warnings.filterwarnings('ignore')
matplotlib.use('Agg')
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from sklearn.datasets import load_digits
from hypothesis import settings

settings.register_profile('project', deadline=None, print_blob=True)
settings.load_profile('project')

@pytest.fixture(autouse=True)
def _seeded(): set_seed(0)

def quiet(learn):
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

def digits_dls(bs=64, n_train=512, n_valid=200):
    "Real handwritten digits, as vectors of 64 values"
    d = load_digits()
    items = [(torch.tensor(x, dtype=torch.float32)/16, torch.tensor(y)) for x,y in zip(d.data, d.target)]
    return DataLoaders(DataLoader(items[:n_train], bs=bs, shuffle=True, num_workers=0),
                       DataLoader(items[n_train:n_train+n_valid], bs=bs, num_workers=0))

def digits_learner(cbs=None, loss_func=None, dls=None, seed=0, n_out=10, **kwargs):
    "A small quiet classifier of digits, the same one for the same seed"
    set_seed(seed)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, n_out))
    return quiet(Learner(dls or digits_dls(), model, CrossEntropyLossFlat() if loss_func is None else loss_func,
                         metrics=accuracy, cbs=cbs, **kwargs))

def pytest_pycollect_makeitem(name, obj):
    "fastai's star imports bring `test_*` functions of its own along: they are no tests of ours"
    return [] if (getattr(obj, '__module__', None) or '').split('.')[0] in ('fastai', 'fastcore') else None
