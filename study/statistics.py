"""Paired comparisons over seeds whose splits overlap. scipy has the t distribution and statsmodels Holm's rule; the
correction of the variance (Nadeau & Bengio 2003) is in neither"""
from typing import NamedTuple
import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

overlap = 20/60 # test items by training items of a split: what the correction adds to 1/seeds

class Mean(NamedTuple):
    "A mean of differences, and its interval"
    mean:float
    lo:float
    hi:float
    p:float # Of the test
    n:int

def standard_error(
    diff, # One difference for each seed
    ratio=overlap # Test items by training items; 0: seeds that share no item
):
    "sqrt((1/n + ratio)*variance): overlapping splits are not independent (Nadeau & Bengio 2003, section 3)"
    diff = np.asarray(diff, float)
    return np.sqrt((1/len(diff)+ratio)*diff.var(ddof=1))

def _p(t, df, alternative):
    "p of a t value, which may be infinite, or NaN where nothing differs"
    if np.isnan(t): return 1.
    if alternative == 'less': return float(stats.t.cdf(t, df))
    if alternative == 'greater': return float(stats.t.sf(t, df))
    return float(2*stats.t.sf(abs(t), df))

def t_test(
    diff, # One difference for each seed
    mu=0., # What the mean is compared with
    alternative='two-sided', # or "less", "greater"
    ratio=overlap,
    level=.95 # Of the interval, which has two sides
) -> Mean:
    "The corrected resampled t-test"
    diff = np.asarray(diff, float)
    if len(diff) < 2 or not np.isfinite(diff).all():
        raise ValueError(f"diff={diff}: expected two or more finite differences; a failed run is no number")
    mean,se,df = diff.mean(),standard_error(diff, ratio),len(diff)-1
    with np.errstate(invalid='ignore', divide='ignore'): t = np.divide(mean-mu, se)
    half = se*stats.t.ppf((1+level)/2, df)
    return Mean(mean, mean-half, mean+half, _p(t, df, alternative), len(diff))

def tost(
    diff, # One difference for each seed
    margin, # Equivalent means: within `margin` of 0
    ratio=overlap
) -> Mean: # `p` below 0.05: equivalent at 5%. The interval is of 95%, as everywhere
    "Two one-sided tests: is the mean above -margin, and below margin?"
    above,below = t_test(diff, -margin, 'greater', ratio),t_test(diff, margin, 'less', ratio)
    return above._replace(p=max(above.p, below.p))

def not_worse(
    diff, # One difference for each seed; larger is better
    margin, # By how much the mean may be below 0
    ratio=overlap
) -> Mean:
    "Non-inferiority: is the mean above -margin?"
    return t_test(diff, -margin, 'greater', ratio)

def holm(p):
    "p values after Holm's correction (1979)"
    return multipletests(p, method='holm')[1]
