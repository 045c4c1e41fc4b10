"Settings of all tests: no warnings, no windows, one seed, and names for the cases of a table"
import gc, warnings
import matplotlib, pytest
warnings.filterwarnings('ignore')
matplotlib.use('Agg')
from fastai.basics import *
from hypothesis import settings
from helpers import torchrun

settings.register_profile('project', deadline=None, print_blob=True)
settings.load_profile('project')

@pytest.fixture(autouse=True)
def _seeded(): set_seed(0)

@pytest.fixture(scope='session')
def ranks(tmp_path_factory):
    "What `distributed_fit.py` ended with in each of two processes"
    pytest.importorskip('accelerate', reason="fastai's distributed training needs accelerate")
    return torchrun('distributed_fit.py', tmp_path_factory.mktemp('ranks'))

def pytest_pycollect_makeitem(name, obj):
    "fastai's star imports bring `test_*` functions of its own along: they are no tests of ours"
    return [] if (getattr(obj, '__module__', None) or '').split('.')[0] in ('fastai', 'fastcore') else None

def pytest_collection_finish():
    "Leave what is imported by now out of searches for garbage: each would take .3 s, and the study makes many"
    gc.collect()
    gc.freeze()

def pytest_make_parametrize_id(val):
    "Names of dtypes, shapes, pairs, losses and exceptions, which pytest only numbers"
    if isinstance(val, torch.dtype): return str(val).removeprefix('torch.')
    if isinstance(val, tuple) and all(isinstance(o, (int, float)) for o in val): return str(val)
    if isinstance(val, (nn.Module, BaseLoss, BaseException, np.generic)): return type(val).__name__
