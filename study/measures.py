"The endpoints, of all networks of a stack at once: logits are (items, networks, classes), labels (items, networks)"
import numpy as np
from scipy.special import log_softmax, logsumexp

def at(x, labels): return np.take_along_axis(x, labels[..., None], -1)[..., 0]

def log_observed(logp, T):
    "From classes to labels: log of `p @ T`; T is (networks, classes, labels), or None where labels are the classes"
    return logp if T is None else np.log(np.einsum('irk,rkl->irl', np.exp(logp), T).clip(1e-300))

def label_nll(logits, labels, T=None):
    "Mean negative log-likelihood of labels, for each network"
    return -at(log_observed(log_softmax(logits, -1), T), labels).mean(0)

def temperature(logits, labels, T=None):
    "The temperature of each network that makes the labels most likely; from 0.05 to 20, to 0.1%"
    lo,hi = np.full(logits.shape[1], np.log(.05)),np.full(logits.shape[1], np.log(20.))
    for _ in range(5):
        at_ = np.linspace(lo, hi, 15) # (15, networks)
        best = np.stack([label_nll(logits/np.exp(t)[:, None], labels, T) for t in at_]).argmin(0)
        step = (hi-lo)/14
        mid = np.take_along_axis(at_, best[None], 0)[0]
        lo,hi = np.maximum(mid-step, np.log(.05)),np.minimum(mid+step, np.log(20.))
    return np.exp(mid)

def calibration_error(p, right, n_bins=15):
    "Expected calibration error of the top class, in equal bins (lo, hi] (Guo et al. 2017, equation 3)"
    conf = p.max(-1)
    edges = np.linspace(0, 1, n_bins+1)[1:-1]
    which = np.searchsorted(edges, conf, side='left')
    gaps = [np.where(which == k, right-conf, 0).sum(0) for k in range(n_bins)]
    return np.abs(gaps).sum(0)/len(conf)

def risk_coverage(logits, right):
    "Area under the risk-coverage curve: the mean error of the k surest answers, over all k (Geifman et al. 2019)"
    others = np.sort(logits, -1)[..., :-1]
    sure = logits.max(-1)-logsumexp(others, axis=-1) # the logit of the top probability: it has no ties at 1
    wrong = 1-np.take_along_axis(right, np.argsort(-sure, 0, kind='stable'), 0)
    return (wrong.cumsum(0)/np.arange(1, len(wrong)+1)[:, None]).mean(0)

def correlation(a, b):
    a,b = a-a.mean(0),b-b.mean(0)
    return (a*b).sum(0)/np.sqrt((a*a).sum(0)*(b*b).sum(0)).clip(1e-12)

def entropy(p): return -(p*np.log(p.clip(1e-12))).sum(-1)

def endpoints(valid, observed, test, y, T=None, votes=None):
    "Each endpoint of STUDY.md for each network. `observed`: validation labels; `y` and `votes` (shares): of test items"
    logp = log_softmax(test, -1)
    p,right = np.exp(logp),(test.argmax(-1) == y).astype(float)
    temp = temperature(valid, observed, T)
    scaled = test/temp[:, None]
    res = dict(accuracy=right.mean(0), nll=-at(logp, y).mean(0), brier=((p-np.eye(p.shape[-1])[y])**2).sum(-1).mean(0),
               ece=calibration_error(p, right), temp=temp, nll_t=label_nll(scaled, y), aurc=risk_coverage(test, right),
               aurc_t=risk_coverage(scaled, right), valid_nll=label_nll(valid, observed, T),
               valid_accuracy=(valid.argmax(-1) == observed).mean(0))
    if votes is not None:
        res['nll_votes'] = -(votes*logp).sum(-1).mean(0)
        res['nll_votes_t'] = -(votes*log_softmax(scaled, -1)).sum(-1).mean(0)
        res['entropy_corr'] = correlation(entropy(p), entropy(votes))
    return res
