"""The arms: the methods that the study compares. All are a `Learner` with `LabelSmooth` (or none), on the same
networks and batches"""
import time
from functools import partial
from typing import NamedTuple
import numpy as np
import torch
from scipy.special import softmax
from sklearn.model_selection import StratifiedKFold
from fastai_labelsmooth.callback import LabelSmooth
from fastai_labelsmooth.smoothers.model import Bootstrap
from fastai_labelsmooth.smoothers.forward import Forward
from fastai_labelsmooth.smoothers.penalties import ConfidencePenalty, MaxSup
from fastai_labelsmooth.wrong_labels.noise import fit_noise, named_wrong
from .data import symmetric
from .measures import label_nll
from .stack import logits, train

grid = .05, .1, .2, .3, .4 # and 0, which is `hard`: what `eps_find` tries
n_folds = 5

class Result(NamedTuple):
    "The result of an arm, for each of R networks"
    valid:np.ndarray # Logits (items, R, classes)
    test:np.ndarray
    seconds:float # Of all trainings that it needs, together
    weights:torch.Tensor # (R, weights)
    eps:object = np.nan # A number, or one for each network
    T:np.ndarray = None # (R, classes, classes): its noise matrix
    extra:dict = {} # Endpoints of its own

def two_classes(z):
    "Several labels an item as two-class problems: (items, R, labels) to (items*labels, R, 2)"
    z = z.transpose(0, 2, 1).reshape(-1, z.shape[1])
    return np.stack([np.zeros_like(z), z], -1)

def per_network(T):
    "`Forward` with a matrix for each network. The posterior of the clean class as target gives `Forward`'s gradient"
    log_T = torch.as_tensor(T, dtype=torch.float32).clamp(min=1e-30).log()
    network = torch.arange(len(T))
    def mode(targ, batch): return (batch.pred.log_softmax(-1) + log_T[network, :, targ]).softmax(-1)
    return mode

def joint_matrix(probs, labels):
    """The noise matrix by the confident joint (Northcutt et al. 2021, section 3.1), drawn towards symmetric noise by
    the variance of its entries. The table was made with this estimator; the library now has `fit_noise`"""
    n = probs.shape[1]
    size = np.bincount(labels, minlength=n)
    own = probs[np.arange(len(labels)), labels]
    thresh = np.bincount(labels, own, n)/np.maximum(size, 1)
    passed = (probs >= thresh - 1e-6) & (size > 0)
    clean,some = np.where(passed, probs, -1).argmax(1),passed.any(1)
    counts = np.bincount(clean[some]*n + labels[some], minlength=n*n).reshape(n, n)
    counts = counts + np.diag(counts.diagonal() == 0)
    joint = counts/counts.sum(0)*size
    joint = joint/joint.sum()
    T,even = joint/joint.sum(1, keepdims=True),symmetric(n, 1-np.trace(joint))
    variance = (T*(1-T)/np.maximum(joint.sum(1)*len(labels), 1)[:, None]).sum()
    distance = ((T-even)**2).sum()
    by = min(variance/distance, 1.) if distance else 1.
    return by*even + (1-by)*T

class Cell:
    "A world, its fit, and the trainings so far: what several arms need is trained once"
    def __init__(self, world, fit):
        self.world,self.fit,self.done = world,fit,{}
        self.R,self.n = len(world.seeds),2 if world.data.sigmoid else world.data.n

    def once(self, key, make):
        if key not in self.done: self.done[key] = make()
        return self.done[key]

    def logits(self, model, items):
        z = logits(model, self.world.data.x, items)
        return two_classes(z) if self.world.data.sigmoid else z

    def labels(self, items, source=None):
        "(items, R) of positions (R, items), as observed or of another array (all items)"
        each = self.world.labels if source is None else [source]*self.R
        res = np.stack([o[i] for o,i in zip(each, items)], -1) # (items, R); scored one by one: (items, labels, R)
        return res.reshape(-1, self.R)

    def train(self, mode='hard', eps=None, targets=None, items=None):
        "A training on all items, or on each network's `items`"
        w,cbs = self.world,None if mode == 'hard' else LabelSmooth(eps, mode=mode)
        if targets is None: targets = w.labels.astype(np.float32) if w.data.sigmoid else w.labels
        if items is None: items = list(w.train)
        data,n_items = w.data,w.train.shape[1]
        model,seconds = train(data.x, data.n, w.seeds, items, targets, self.fit, cbs, n_items, data.sigmoid)
        weights = torch.cat([p.detach().flatten(1) for p in model.parameters()], 1)
        eps = np.nan if eps is None else eps
        return Result(self.logits(model, w.valid), self.logits(model, w.test), seconds, weights, eps)

# One training

def hard(cell): return cell.once('hard', lambda: cell.train()._replace(eps=0.))

def smooth(cell, mode, eps=None):
    "Trained with a mode: its name, or a smoother"
    if eps == 0: return hard(cell)
    res = cell.once((str(mode), eps), lambda: cell.train(mode, eps))
    if mode != 'forward' or isinstance(eps, tuple): return res
    return res._replace(T=np.stack([symmetric(cell.n, eps)]*cell.R))

def rescaled(cell):
    "paper(eps*N/(N-1)) compared with exact(eps): the largest difference of a weight, for each network"
    res,exact = smooth(cell, 'paper', .1*cell.n/(cell.n-1)),smooth(cell, 'exact', .1)
    gap = (res.weights-exact.weights).abs().amax(1)
    return res._replace(extra=dict(weight_gap=gap.numpy()))

def true_eps(cell):
    "`eps` is the true share of wrong labels; with several labels an item, both rates"
    eps,T = round(cell.world.eps, 6),cell.world.T
    if not cell.world.data.sigmoid: return smooth(cell, 'forward', eps)
    if not eps: return hard(cell)
    return smooth(cell, 'forward', (T[1, 0], T[0, 1]))._replace(T=np.stack([T]*cell.R), eps=eps)

def matrix(cell, T, seconds=0.):
    "Forward with one matrix for each network"
    refused = np.array([(np.diag(t) <= (t-np.diag(np.diag(t))).max(1)).any() for t in T]) # by the library's `Forward`
    res = cell.train(per_network(T))
    eps = np.array([1-np.diag(t).mean() for t in T])
    return res._replace(T=T, eps=eps, seconds=res.seconds+seconds, extra=dict(refused=refused))

def true_matrix(cell):
    w = cell.world
    if w.noise == 'none': return hard(cell)._replace(T=np.stack([w.T]*cell.R))
    return cell.train(Forward(w.T))._replace(T=np.stack([w.T]*cell.R), eps=w.eps)

def votes(cell):
    "Trained on the shares of all votes, not on one vote"
    v = cell.world.data.votes
    shares = torch.as_tensor(v/v.sum(1, keepdims=True), dtype=torch.float32)
    return cell.train(targets=shares.expand(cell.R, *shares.shape))

# What needs several

def choose(cell, mode):
    "`eps_find`: train for each eps; each network keeps the eps under which the validation labels are most likely"
    tried = [hard(cell), *(smooth(cell, mode, e) for e in grid)]
    labels = cell.labels(cell.world.valid)
    best = np.stack([label_nll(o.valid, labels, o.T) for o in tried]).argmin(0)
    network = np.arange(cell.R)
    def pick(values): return np.stack([tried[b][values][:, k] for k,b in zip(network, best)], 1)
    T = np.stack([np.eye(cell.n) if tried[b].T is None else tried[b].T[k] for k,b in zip(network, best)])
    seconds,eps = sum(o.seconds for o in tried),np.array([0., *grid])[best]
    return Result(pick(0), pick(1), seconds, None, eps, T if mode == 'forward' else None)

def by_valid_matrix(cell):
    "Forward with the matrix of the validation items, as the hard model sees them"
    first = hard(cell)
    start = time.process_time()
    p,labels = softmax(first.valid, -1),cell.labels(cell.world.valid)
    T = np.stack([joint_matrix(p[:, k], labels[:, k]) for k in range(cell.R)])
    return matrix(cell, T, first.seconds + time.process_time()-start)

def folds(cell):
    "The fold of each training item, (R, items)"
    w = cell.world
    def of(seed, items, labels):
        res,split = np.zeros(len(items), int),StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        for k,(_,part) in enumerate(split.split(items, labels[items])): res[part] = k
        return res
    return cell.once('folds', lambda: np.stack([of(*o) for o in zip(w.seeds, w.train, w.labels)]))

def out_of_fold(cell, kept, mode='hard', eps=None):
    "Training items by models of the other folds: (probabilities (R, items, classes), seconds). All folds are one stack"
    w,fold = cell.world,folds(cell)
    seeds = np.repeat(w.seeds, n_folds)
    items = [w.train[r][(fold[r] != k) & kept[r]] for r in range(cell.R) for k in range(n_folds)]
    labels = torch.as_tensor(w.labels).repeat_interleave(n_folds, 0)
    cbs = None if mode == 'hard' else LabelSmooth(eps, mode=mode)
    epoch_items = w.train.shape[1]*(n_folds-1)/n_folds
    model,seconds = train(w.data.x, w.data.n, seeds, items, labels, cell.fit, cbs, epoch_items)
    z = logits(model, w.data.x, w.train.repeat(n_folds, 0)).reshape(w.train.shape[1], cell.R, n_folds, -1)
    return softmax(np.take_along_axis(z, fold.T[..., None, None], 2)[:, :, 0], -1).transpose(1, 0, 2),seconds

def all_items(cell): return np.ones(cell.world.train.shape, bool)
def hard_folds(cell): return cell.once('hard folds', lambda: out_of_fold(cell, all_items(cell)))
def forward_folds(cell): # with the eps of `label_issues`
    return cell.once('forward folds', lambda: out_of_fold(cell, all_items(cell), 'forward', .2))

def train_labels(cell): return cell.labels(cell.world.train).T # (R, items)

def fold_matrix(cell):
    "The matrix of the out-of-fold predictions of forward models"
    def make():
        p,_ = forward_folds(cell)
        return np.stack([joint_matrix(o, labels) for o,labels in zip(p, train_labels(cell))])
    return cell.once('fold matrix', make)

def by_fold_matrix(cell): return matrix(cell, fold_matrix(cell), forward_folds(cell)[1])

def posterior_issues(p, T, labels):
    "Which labels are not the most probable class given the label: the rule that the table was made with"
    return (p*T[:, labels].T).argmax(1) != labels

def first_round(cell):
    given = zip(forward_folds(cell)[0], fold_matrix(cell), train_labels(cell))
    return cell.once('first round', lambda: np.stack([posterior_issues(*o) for o in given]))

def second_round(cell):
    def make():
        p,seconds = out_of_fold(cell, ~first_round(cell))
        return p.argmax(-1) != train_labels(cell),seconds
    return cell.once('second round', make)

def pruned(cell, issues, seconds, likely=None):
    """Trained on the rest, for as many steps; precision and recall of the issues. With `likely`, (R, items): trained on
    all, issues relabelled so"""
    w = cell.world
    wrong = train_labels(cell) != w.data.y[w.train]
    right = (issues & wrong).sum(1)
    with np.errstate(invalid='ignore', divide='ignore'):
        precision,recall = right/issues.sum(1),right/wrong.sum(1) # NaN where there is none
    if likely is None: res = cell.train(items=[items[~i] for items,i in zip(w.train, issues)])
    else:
        labels = w.labels.copy()
        np.put_along_axis(labels, w.train, np.where(issues, likely, train_labels(cell)), 1)
        res = cell.train(targets=labels)
    extra = dict(precision=precision, recall=recall, removed=issues.mean(1))
    return res._replace(seconds=res.seconds+seconds, extra=extra)

def issues_1(cell): return pruned(cell, first_round(cell), forward_folds(cell)[1])

def issues_2(cell):
    issues,seconds = second_round(cell)
    return pruned(cell, issues, seconds+forward_folds(cell)[1])

def cleanlab(cell):
    "From outside: cleanlab's filter on five folds of hard models, a hard model of the rest (Northcutt et al. 2021)"
    from cleanlab.filter import find_label_issues
    p,seconds = hard_folds(cell)
    start = time.process_time()
    issues = np.stack([find_label_issues(labels, o, n_jobs=1) for o,labels in zip(p, train_labels(cell))])
    return pruned(cell, issues, seconds + time.process_time()-start)

# With the noise model of the library, `fit_noise`

def fitted(probs, labels, by_class):
    "(each network's noise model, seconds); probabilities (R, items, classes), labels (R, items)"
    start = time.process_time()
    return [fit_noise(*o, by_class) for o in zip(probs, labels)],time.process_time()-start

def matrices(found): return np.stack([noise.T for noise in found])

def by_valid_noise(cell, by_class):
    "Forward with one eps or a matrix, fitted to the hard model's predictions of the validation items"
    first = hard(cell)
    found,seconds = fitted(softmax(first.valid, -1).transpose(1, 0, 2), cell.labels(cell.world.valid).T, by_class)
    return matrix(cell, matrices(found), first.seconds+seconds)

def fold_noise(cell, by_class):
    "Noise models of the out-of-fold predictions of hard models, and the seconds of both"
    def make():
        p,seconds = hard_folds(cell)
        found,more = fitted(p, train_labels(cell), by_class)
        return found,seconds+more
    return cell.once(('fold noise', by_class), make)

def by_fold_noise(cell):
    found,seconds = fold_noise(cell, True)
    return matrix(cell, matrices(found), seconds)

def likely_class(noise, p, labels):
    "The most probable other class of each item, if its label is wrong"
    joint = noise.clean(p)*noise.T[:, labels].T
    np.put_along_axis(joint, labels[:, None], -1, 1)
    return joint.argmax(1)

def fitted_issues(cell, by_class=False, relabel=False):
    "What `label_issues` names, from one round of hard models"
    found,seconds = fold_noise(cell, by_class)
    each = list(zip(found, hard_folds(cell)[0], train_labels(cell)))
    issues = np.stack([named_wrong(noise.prob_wrong(p, labels), p, labels) for noise,p,labels in each])
    return pruned(cell, issues, seconds, np.stack([likely_class(*o) for o in each]) if relabel else None)

def modes(mode): return {f'{mode} {e}': partial(smooth, mode=mode, eps=e) for e in grid}

arms = {'hard': hard, 'paper 0.1': partial(smooth, mode='paper', eps=.1), **modes('exact'), 'paper rescaled': rescaled,
        'exact eps_find': partial(choose, mode='exact'), **modes('forward'), 'forward true eps': true_eps,
        'forward eps_find': partial(choose, mode='forward')}
softmax_arms = {**arms, 'forward true matrix': true_matrix, 'forward noise_matrix': by_valid_matrix,
                'bootstrap': partial(smooth, mode=Bootstrap(), eps=.1),
                'max_sup': partial(smooth, mode=MaxSup(), eps=.1),
                'confidence_penalty': partial(smooth, mode=ConfidencePenalty(), eps=.1),
                'forward oof matrix': by_fold_matrix, 'issues 1 round': issues_1, 'issues 2 rounds': issues_2,
                'cleanlab prune': cleanlab,
                'forward one': partial(by_valid_noise, by_class=False),
                'forward valid T': partial(by_valid_noise, by_class=True), 'forward oof T': by_fold_noise,
                'issues even': fitted_issues, 'issues by class': partial(fitted_issues, by_class=True),
                'issues even relabelled': partial(fitted_issues, relabel=True)}

def arms_of(data):
    "The arms that a data set can have"
    if data.sigmoid: return arms
    heavy = {'exact 0.7': partial(smooth, mode='exact', eps=.7)} # of H4b
    if data.n == 10: return {**softmax_arms, **heavy}
    return {**softmax_arms, 'votes': votes} if data.votes is not None else softmax_arms
