"""What is run. The fit of each data set was chosen once, for `hard` without noise on seed 0, which the study does not
use: the learning rate 0.01 of (0.001, 0.003, 0.01, 0.03) is within 0.005 of the best likelihood of validation labels;
`short` has about the best likelihood (more passes gain less than 0.003 or lose); `long` is long enough to memorise 20%
wrong labels (99% of the noisy training labels are fitted; of the snippets 76%, and the likelihood is worse by 0.14)"""
from .stack import Fit

def both(bs, short, long, hidden=100): return dict(short=Fit(1e-2, bs, short, hidden), long=Fit(1e-2, bs, long, hidden))

_fits = dict(breast_cancer=both(32, 5, 60), wine=both(16, 10, 90), digits=both(64, 15, 60), mnist=both(64, 6, 30, 64),
             snippets=both(128, 4, 12), yeast=both(64, 5, 60))
fits = {(data, regime): fit for data,o in _fits.items() for regime,fit in o.items()}
regimes = 'long', 'short'
noises = 'none', 'symmetric 10', 'symmetric 20', 'symmetric 30', 'asymmetric'
seeds = tuple(range(1, 31))
mnist_seeds = seeds[:10]

def cells(data, noises, seeds): return [(data, noise, regime, seeds) for noise in noises for regime in regimes]

# STUDY.md asks for 30 seeds and for 45 minutes on two cores. MNIST takes 29 minutes of one core for 10 seeds and two
# noises, as much as all else; with all seeds and noises it would be 218
plan = [*cells('snippets', ('one vote',), seeds),
        *(o for data in ('digits', 'breast_cancer', 'wine') for o in cells(data, noises, seeds)),
        *cells('mnist', ('none', 'symmetric 30'), mnist_seeds), *cells('yeast', noises, seeds)]
quick_plan = [('wine', 'symmetric 20', 'short', seeds[:4]), ('breast_cancer', 'none', 'short', seeds[:4]),
              ('breast_cancer', 'asymmetric', 'short', seeds[:4])]
