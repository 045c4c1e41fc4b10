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

class Logits(nn.Module):
    "A model that returns its input"
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
    def forward(self, x): return x+0*self.w

def logits_learner(z, y, loss, bs=64, cbs=None, **kwargs):
    "A learner whose predictions are the logits `z`"
    dls = DataLoaders(*[DataLoader(list(zip(z, y)), bs=bs, num_workers=0, **kwargs) for _ in range(2)])
    return quiet(Learner(dls, Logits(), loss, cbs=cbs))

def softmax_data(m=500, n=5, scale=3.):
    z = torch.randn(m, n)*scale
    return z,(z/2).softmax(1).multinomial(1)[:, 0]

def multi_data(m=300, n=4):
    z = torch.randn(m, n)*2
    return z,torch.bernoulli((z/2).sigmoid())

def seg_data(b=6, n=4, void=255):
    z = torch.randn(b, n, 7, 9)*2
    y = torch.randint(0, n, (b, 7, 9))
    y[torch.rand(y.shape) < .2] = void
    return z,y

def pytest_pycollect_makeitem(name, obj):
    "fastai's star imports bring `test_*` functions of its own along: they are no tests of ours"
    return [] if (getattr(obj, '__module__', None) or '').split('.')[0] in ('fastai', 'fastcore') else None
