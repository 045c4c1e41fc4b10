import warnings
import matplotlib, pytest
warnings.filterwarnings('ignore')
matplotlib.use('Agg')
from fastai.basics import *
from hypothesis import settings

settings.register_profile('project', deadline=None, print_blob=True)
settings.load_profile('project')

@pytest.fixture(autouse=True)
def _seeded(): set_seed(0)

def pytest_pycollect_makeitem(name, obj):
    "fastai's star imports bring `test_*` functions of its own along: they are no tests of ours"
    return [] if (getattr(obj, '__module__', None) or '').split('.')[0] in ('fastai', 'fastcore') else None
