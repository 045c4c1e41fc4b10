"`fit_noise`: a noise model of labels, on plain arrays"
import tracemalloc, warnings
import numpy as np, pytest, torch
from pytest import param
from fastai.basics import BCEWithLogitsLossFlat, DataLoader, DataLoaders, Learner
from helpers import quiet
from fastai_labelsmooth.all import Forward
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression
from fastai_labelsmooth.wrong_labels.noise import (_binary_loss, _counted, _joint, _rows, _symmetric, fit_noise,
                                                  named_wrong)

def softmax(z):
    p = np.exp(z-z.max(1, keepdims=True))
    return p/p.sum(1, keepdims=True)

def made(share=.2, n_items=2000, n=4, temp=1., by_class=False, seed=0, sharp=2.):
    "Predictions that are right about the clean class up to a temperature, labels as observed, which are wrong"
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_items, n))*sharp
    clean = (softmax(z).cumsum(1) < rng.random(n_items)[:, None]).sum(1).clip(max=n-1)
    wrong = rng.random(n_items) < share
    other = (clean+1)%n if by_class else (clean + rng.integers(1, n, n_items))%n
    return softmax(z*temp),np.where(wrong, other, clean),wrong

def log_lik(probs, labels, eps, temp):
    "Item by item, with a matrix"
    n = probs.shape[1]
    T = [[1-eps if j == k else eps/(n-1) for k in range(n)] for j in range(n)]
    total = 0.
    for p,y in zip(probs, labels):
        q = np.array([a**(1/temp) for a in p])
        q /= q.sum()
        total += np.log(sum(q[j]*T[j][y] for j in range(n)))
    return total

def slow_prob_wrong(probs, labels, T, temp):
    res = []
    for p,y in zip(probs, labels):
        q = np.array([a**(1/temp) for a in p])
        q /= q.sum()
        joint = [q[j]*T[j][y] for j in range(len(q))]
        res.append(1 - joint[y]/sum(joint))
    return np.array(res)

# Wrong evenly

@pytest.mark.parametrize('share', [0., .1, .2, .4])
@pytest.mark.parametrize('temp', [.5, 1., 2.])
def test_share_and_temperature_are_found(share, temp):
    probs,labels,wrong = made(share, 4000, temp=temp, sharp=4.)
    noise = fit_noise(probs, labels)
    lo,hi = noise.interval
    assert lo-1e-9 <= wrong.mean() <= hi and hi-lo < .1
    assert lo <= noise.share <= hi and noise.n == 4000
    assert abs(noise.temp-temp) < .25*temp

def test_the_fit_is_the_most_likely_one():
    probs,labels,_ = made(n_items=400, sharp=4.)
    noise = fit_noise(probs, labels)
    best = log_lik(probs, labels, noise.share, noise.temp)
    assert abs(best - noise.curve.log_lik.max()) < 1e-6
    grid = [log_lik(probs, labels, e, t) for e in np.linspace(0, .7, 15) for t in np.geomspace(.2, 5, 15)]
    assert best >= max(grid)-1e-6
    assert noise.interval[0] > 0
    for end in noise.interval: # two below the best, at the temperature that is best there
        here = max(log_lik(probs, labels, end, t) for t in np.geomspace(.3, 3, 60))
        assert abs(best-here-2) < .05

def test_prob_wrong_is_that_of_bayes():
    probs,labels,_ = made(n_items=200)
    noise = fit_noise(probs, labels)
    hi = noise.interval[1]
    T = np.full((4, 4), hi/3)
    np.fill_diagonal(T, 1-hi)
    assert np.allclose(noise.prob_wrong(probs, labels), slow_prob_wrong(probs, labels, T, noise.curve.temp[hi]))
    assert np.allclose(noise.T.sum(1), 1) and np.allclose(np.diag(noise.T), 1-noise.share)

def test_prob_wrong_means_what_it_says():
    "Of labels with a probability of .3, 30% are wrong: at the most likely share, which is near the list's here"
    probs,labels,wrong = made(.2, 20_000)
    doubt = fit_noise(probs, labels).prob_wrong(probs, labels)
    for lo,hi in ((0, .1), (.2, .4), (.4, .6), (.8, 1.)):
        here = (lo <= doubt) & (doubt < hi)
        assert here.sum() > 200 and abs(wrong[here].mean()-doubt[here].mean()) < .04

def test_clean_is_calibrated():
    probs,labels,wrong = made(.3, 8000, temp=3.)
    clean = fit_noise(probs, labels).clean(torch.tensor(probs))
    truth,_,_ = made(0., 8000)
    assert np.abs(clean-truth).mean() < .02 < .08 < np.abs(probs-truth).mean()

def test_coverage_of_the_interval():
    held = [lo <= .2 <= hi for lo,hi in (fit_noise(*made(.2, 600, seed=s)[:2]).interval for s in range(40))]
    assert np.mean(held) > .85

def test_tensors_are_arrays():
    probs,labels,_ = made(n_items=300)
    noise = fit_noise(torch.tensor(probs), torch.tensor(labels))
    assert noise.share == fit_noise(probs, labels).share
    assert fit_noise(torch.tensor(probs).float(), labels.astype(np.int32)).share == pytest.approx(noise.share, abs=1e-3)

def test_new_items_are_judged_too():
    probs,labels,_ = made()
    new,new_labels,wrong = made(seed=1)
    doubt = fit_noise(probs, labels).prob_wrong(new, new_labels)
    assert wrong[np.argsort(-doubt)[:100]].mean() > .8
    with pytest.raises(ValueError, match=r'shape \(2000, 3\): expected \(items, 4\)'):
        fit_noise(probs, labels).prob_wrong(softmax(new[:, :3]), new_labels.clip(max=2))

# By class

def by_hand(probs, labels):
    "Northcutt et al. 2021, equations 1 and 2, item by item"
    n = probs.shape[1]
    t = [probs[labels == j, j].mean() for j in range(n)]
    C = np.zeros((n, n))
    for p,y in zip(probs, labels):
        over = [j for j in range(n) if p[j] >= t[j]-1e-6] # as cleanlab
        if over: C[max(over, key=lambda j: p[j]), y] += 1
    return C

@pytest.mark.parametrize('seed', range(3))
def test_confident_joint_is_that_of_the_paper(seed):
    probs,labels,_ = made(.25, 400, by_class=True, seed=seed)
    C = by_hand(probs, labels)
    joint = C/C.sum(0)*np.bincount(labels)
    assert np.allclose(_joint(probs, labels), joint/joint.sum())

@pytest.mark.parametrize('share', [0., .1, .3])
def test_confident_joint_against_cleanlab(share):
    count = pytest.importorskip('cleanlab.count')
    probs,labels,_ = made(share, by_class=True)
    theirs = count.compute_confident_joint(labels, probs, calibrate=True)
    assert np.abs(_joint(probs, labels).T - theirs/theirs.sum()).max() < 2/2000 # they round to whole items

def test_wrong_labels_by_class():
    probs,labels,wrong = made(.3, 5000, by_class=True, sharp=5.)
    noise = fit_noise(probs, labels, by_class=True)
    assert np.allclose(noise.T.sum(1), 1)
    assert np.abs(noise.T[range(4), [1, 2, 3, 0]]-.3).max() < .08 and noise.T[0, 2] < .05
    assert noise.interval[0] <= wrong.mean() <= noise.interval[1]
    doubt = noise.prob_wrong(probs, labels)
    assert np.allclose(doubt, slow_prob_wrong(probs, labels, noise.T, noise.temp))
    assert noise.share == pytest.approx(doubt.mean())
    even = fit_noise(probs, labels).prob_wrong(probs, labels)
    assert ((doubt > .5) == wrong).mean() > ((even > .5) == wrong).mean()
    assert Forward(noise.T).T.shape == (4, 4)

def test_rows_of_few_items_are_wrong_evenly():
    prior = _symmetric(3, .3)
    joint = np.array([[500, 500, 0], [0, 1000, 0], [0, 1, 1]])/2002
    T = _rows(joint, 2002, prior)
    assert np.allclose(T.sum(1), 1) and np.allclose(T[0], [.5, .5, 0], atol=.01)
    assert np.allclose(T[2], (10*prior[2] + [0, 1, 1])/12)
    assert np.allclose(_rows(joint*[[1], [1], [0]], 2000, prior)[2], prior[2])

# Sigmoid

def made_sigmoid(miss=(.3, .1, 0.), false_pos=(0., .1, 0.), n_items=3000, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_items, len(miss)))*4-1
    probs = 1/(1+np.exp(-z))
    clean = rng.random(probs.shape) < probs
    u = rng.random(probs.shape)
    labels = np.where(clean, u > miss, u < false_pos).astype(int)
    return probs,labels,labels != clean

def test_rates_of_labels_that_are_scored_one_by_one():
    probs,labels,wrong = made_sigmoid()
    noise = fit_noise(probs, labels, by_class=True, sigmoid=True)
    assert noise.T.shape == (3, 2)
    assert np.abs(noise.T - np.array([[.3, 0.], [.1, .1], [0., 0.]])).max() < .06
    assert abs(noise.share-wrong.mean()) < .03 and noise.n == 9000
    doubt = noise.prob_wrong(probs, labels)
    i,j = 5,0 # by hand: a label's miss and false-positive rate
    miss,false_pos = noise.T[j]
    q = 1/(1+np.exp(-np.log(probs[i, j]/(1-probs[i, j]))/noise.temp[j]-noise.shift[j]))
    ways = {1: (q*(1-miss), (1-q)*false_pos), 0: ((1-q)*(1-false_pos), q*miss)}[labels[i, j]]
    assert doubt[i, j] == pytest.approx(ways[1]/sum(ways))
    named = named_wrong(doubt, probs, labels)
    assert named.sum() == round(doubt.sum()) and wrong[named].mean() > 5*wrong.mean()
    assert doubt[named].min() >= doubt[~named].max()

@pytest.mark.parametrize('miss,false_pos', [(0., 0.), (.1, 0.), (.3, 0.), (.5, 0.), (.1, .05), (.3, .05)])
def test_rates_of_labels_that_the_model_was_trained_on(miss, false_pos):
    "A model of missing labels says too little of everything: a temperature without a shift finds 5% of 30% missing"
    probs,labels,_ = made_sigmoid((miss,)*3, (false_pos,)*3, 6000)
    z = np.log(probs/(1-probs))
    model = LogisticRegression().fit(z[:3000].reshape(-1, 1), labels[:3000].ravel())
    probs,labels = model.predict_proba(z[3000:].reshape(-1, 1))[:, 1].reshape(-1, 3),labels[3000:]
    noise = fit_noise(probs, labels, sigmoid=True)
    assert np.abs(noise.T - [miss, false_pos]).max() < .03
    for rate,(_,(lo,hi),_) in zip((miss, false_pos), noise.curves): assert lo-.01 <= rate <= hi+.01 and hi-lo < .1

@pytest.mark.parametrize('params', [(.2, .1, .3, -.5), (.01, .3, -1., 1.), (.6, .02, 1., 0.)])
def test_gradient_of_the_likelihood(params):
    probs,labels,_ = made_sigmoid(n_items=200)
    counted = _counted(probs.ravel(), labels.ravel())
    slow = approx_fprime(np.array(params), lambda o: _binary_loss(o, *counted)[0], 1e-7)
    assert np.allclose(_binary_loss(params, *counted)[1], slow, rtol=1e-3, atol=1e-2)

def test_the_likelihood_item_by_item():
    probs,labels,_ = made_sigmoid(n_items=200)
    total = 0.
    for p,y in zip(probs.ravel(), labels.ravel()):
        q = 1/(1+np.exp(-np.log(p/(1-p))/2 - .3))
        reported = .8*q + .1*(1-q)
        total -= np.log(reported if y else 1-reported)
    got = _binary_loss((.2, .1, np.log(2), .3), *_counted(probs.ravel(), labels.ravel()))[0]
    assert got == pytest.approx(total, rel=1e-3) # logits are rounded

@pytest.mark.parametrize('labels', [np.zeros((300, 2), int), np.random.default_rng(0).integers(0, 2, (300, 2))],
                         ids=['no ones', 'predictions all equal'])
def test_rates_that_cannot_be_told(labels):
    with pytest.warns(UserWarning, match='cannot tell which are wrong'):
        noise = fit_noise(np.full((300, 2), .3), labels, sigmoid=True)
    assert noise.is_blind and np.isfinite(noise.T).all()

def test_a_label_that_is_always_unknown_has_the_pooled_rates():
    probs,labels,_ = made_sigmoid((.3,)*3, (0.,)*3)
    labels = labels.astype(float)
    labels[:, 1] = np.nan
    pooled = fit_noise(probs, labels, sigmoid=True).T[0]
    assert np.allclose(fit_noise(probs, labels, by_class=True, sigmoid=True).T[1], pooled, atol=1e-3)

def test_pooled_rates_and_unknown_labels():
    probs,labels,wrong = made_sigmoid((.2,)*3, (0.,)*3)
    labels = labels.astype(float)
    labels[:1500, 2] = np.nan
    noise = fit_noise(probs, labels, sigmoid=True)
    assert (noise.T == noise.T[0]).all() and abs(noise.T[0, 0]-.2) < .06 and noise.n == 7500
    doubt = noise.prob_wrong(probs, labels)
    assert np.isnan(doubt[:1500, 2]).all() and not np.isnan(doubt[1500:]).any()
    assert not named_wrong(doubt, probs, labels)[:1500, 2].any()
    by_index = np.where(np.isnan(labels), -100, labels)
    assert fit_noise(probs, by_index, sigmoid=True).share == noise.share

def test_a_label_with_few_ones_has_the_pooled_rates():
    probs,labels,_ = made_sigmoid((.3,)*3, (0.,)*3)
    probs[:, 2],labels[:, 2] = .001,0
    labels[:2, 2] = 1
    T = fit_noise(probs, labels, by_class=True, sigmoid=True).T
    assert abs(T[2, 0]-.27) < .12

# What is special

def test_a_class_without_items_names_nothing():
    "An unused class of the vocabulary: every row of the matrix was NaN, and nearly all items were named"
    probs,labels,_ = made(0., 480, n=3, sharp=4.)
    probs = np.concatenate([probs*.999, np.full((480, 1), .001)], 1)
    for by_class in (False, True):
        noise = fit_noise(probs, labels, by_class)
        assert np.isfinite(noise.T).all() and np.allclose(noise.T.sum(1), 1)
        named = named_wrong(noise.prob_wrong(probs, labels), probs, labels)
        assert named.mean() < .03

@pytest.mark.parametrize('by_class', [False, True])
def test_one_item_of_a_class(by_class):
    probs,labels,_ = made(.2, 400, n=3)
    labels[labels == 2] = 1
    labels[0] = 2
    noise = fit_noise(probs, labels, by_class)
    doubt = noise.prob_wrong(probs, labels)
    assert np.isfinite(noise.T).all() and not named_wrong(doubt, probs, labels)[0]

@pytest.mark.parametrize('by_class', [False, True])
def test_one_item_at_all(by_class):
    with pytest.warns(UserWarning, match='cannot tell which are wrong'):
        noise = fit_noise([[.6, .4]], np.array([0]), by_class)
    assert np.isfinite(noise.T).all() and np.isfinite(noise.prob_wrong([[.6, .4]], np.array([0]))).all()

@pytest.mark.parametrize('n', [2, 10])
@pytest.mark.parametrize('by_class', [False, True])
def test_predictions_that_are_all_equal_name_nothing(n, by_class):
    labels = np.random.default_rng(0).integers(0, n, 500)
    probs = np.full((500, n), 1/n)
    with pytest.warns(UserWarning, match='cannot tell which are wrong'): noise = fit_noise(probs, labels, by_class)
    assert noise.interval[0] == 0 and noise.interval[1] > .4
    assert not (noise.prob_wrong(probs, labels) > .5).any()

def test_labels_of_one_class_only():
    probs = softmax(np.random.default_rng(0).normal(size=(200, 3)) + [6, 0, 0])
    for by_class in (False, True):
        noise = fit_noise(probs, np.zeros(200, int), by_class)
        assert noise.share < .02 and not (noise.prob_wrong(probs, np.zeros(200, int)) > .5).any()

def test_two_classes():
    probs,labels,wrong = made(.2, 3000, n=2, sharp=5.)
    noise = fit_noise(probs, labels)
    assert noise.interval[0] <= wrong.mean() <= noise.interval[1] and noise.T.shape == (2, 2)

def test_probabilities_of_zero_and_one():
    probs,labels,wrong = made(.2, 2000, sharp=3.)
    hard = np.eye(4)[probs.argmax(1)]
    noise = fit_noise(hard, labels)
    assert np.isfinite(noise.share) and np.isfinite(noise.prob_wrong(hard, labels)).all()
    assert 0 < noise.share < (hard.argmax(1) != labels).mean()

def test_items_that_do_not_count():
    probs,labels,_ = made(n_items=600)
    masked = labels.copy()
    masked[::3] = -100
    noise,kept = fit_noise(probs, masked),masked != -100
    assert noise.n == 400 and noise.share == fit_noise(probs[kept], labels[kept]).share
    doubt = noise.prob_wrong(probs, masked)
    assert np.isnan(doubt[::3]).all() and np.isfinite(doubt[kept]).all()
    assert not named_wrong(doubt, probs, masked)[::3].any()
    probs[::3] = np.nan # what is predicted there does not matter
    assert fit_noise(probs, masked).share == noise.share
    other = np.where(kept, labels, 255)
    assert fit_noise(probs, other, ignore_index=255).share == noise.share

def test_a_thousand_classes_need_no_more_memory_than_the_predictions():
    rng = np.random.default_rng(0)
    n,n_items = 1000,1500
    labels = rng.integers(0, n, n_items)
    z = rng.normal(size=(n_items, n))
    z[np.arange(n_items), labels] += 8
    wrong = rng.random(n_items) < .2
    probs,labels = softmax(z),np.where(wrong, rng.integers(0, n, n_items), labels)
    tracemalloc.start()
    noise = fit_noise(probs, labels)
    named = noise.prob_wrong(probs, labels) > .5
    _,peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8*probs.nbytes
    assert abs(noise.share-.2) < .03 and (named == wrong).mean() > .95

def test_of_many_items_a_sample_is_fitted(monkeypatch):
    import fastai_labelsmooth.wrong_labels.noise as module
    probs,labels,wrong = made(.2, 8000)
    whole = [fit_noise(probs, labels, o) for o in (False, True)]
    monkeypatch.setattr(module, 'max_numbers', 4*2000)
    for by_class in (False, True):
        noise = fit_noise(probs, labels, by_class)
        assert noise.n == 8000 and abs(noise.share-whole[by_class].share) < .06 # it says how many there are
        assert noise.prob_wrong(probs, labels).shape == (8000,)

# Which labels are named

def test_a_class_keeps_its_last_items():
    probs,labels,_ = made(0., 400, n=3, sharp=4.)
    labels[:4] = 2
    probs[:4] = [.98, .01, .01]
    probs,labels = probs[(labels != 2) | (np.arange(400) < 4)],labels[(labels != 2) | (np.arange(400) < 4)]
    doubt = np.where(labels == 2, .9, .1)
    doubt[:4] = .9,.8,.95,.7
    probs[:4, 2] = 0 # so that all other items are likelier
    named = named_wrong(doubt, probs, labels)
    assert list(np.flatnonzero(named)) == [0, 2]
    assert list(np.flatnonzero(named_wrong(doubt, probs, labels, floor=0))) == [0, 1, 2, 3]
    assert list(np.flatnonzero(named_wrong(doubt, probs, labels, thresh=.92, floor=0))) == [2]

def test_an_item_of_a_rare_class_that_stands_out_is_not_named():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1]*200 + [2]*10)
    probs = np.stack([1-labels%2, labels%2, np.zeros(410)], 1).astype(float)
    probs[:, 2] = rng.random(410)*.1
    probs[400:405, 2] = .099 # the model says .1 of the class, but of hardly an item that is not labelled so
    probs[405:, 2] = .01
    doubt = np.where(labels == 2, .9, .1)
    assert list(np.flatnonzero(named_wrong(doubt, probs, labels))) == [405, 406, 407, 408, 409]
    common = np.where(labels == 2, 1, labels) # the same probabilities, for a class with many items
    assert named_wrong(np.where(labels == 2, .9, .1), probs, common).sum() == 10

# Refused

ok,y = np.full((4, 3), 1/3),np.array([0, 1, 2, 0])

@pytest.mark.parametrize('probs,labels,kwargs,message', [
    param(ok, np.full((4, 3), 1/3), {}, r"labels have shape \(4, 3\).*Votes are not labels", id='votes'),
    param(ok, y.astype(float), {}, r'dtype float64: expected one class index', id='floats'),
    param(ok, y[:3], {}, r'labels have shape \(3,\).*the 4 items', id='too few labels'),
    param(ok, y+1, {}, 'labels have the value 3: expected 0 to 2', id='label too large'),
    param(ok, y-1, {}, 'labels have the value -1: expected 0 to 2, or ignore_index=-100', id='label below 0'),
    param(ok[:, 0], y, {}, r'probs have shape \(4,\): expected \(items, N\)', id='a vector'),
    param(ok[:0], y[:0], {}, r'probs have shape \(0, 3\).*at least one item', id='no items'),
    param(np.ones((4, 1)), y*0, {}, 'probs are of 1 class: expected at least 2', id='one class'),
    param(ok*np.nan, y, {}, r'outside \[0, 1\], or NaN', id='nan'),
    param(ok-1, y, {}, r'outside \[0, 1\]', id='below 0'),
    param(ok*2, y, {}, 'rows that do not sum to 1', id='sum'),
    param(ok, np.full(4, -100), {}, 'no label counts', id='all ignored'),
    param(ok, y, dict(sigmoid=True), r'labels have shape \(4,\) and probs \(4, 3\): expected one label for each',
          id='sigmoid, one label'),
    param(ok, ok, dict(sigmoid=True), r'labels have the value 0\.33.*expected 0, 1, or NaN', id='sigmoid, shares'),
    param(ok, np.full((4, 3), np.nan), dict(sigmoid=True), 'no label counts', id='sigmoid, all ignored')])
def test_refused(probs, labels, kwargs, message):
    with pytest.raises(ValueError, match=message): fit_noise(probs, labels, **kwargs)
    if not kwargs:
        with pytest.raises(ValueError, match=message): fit_noise(probs, labels, by_class=True)

def test_what_is_fine_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for by_class in (False, True): fit_noise(*made(n_items=500)[:2], by_class)

def test_noise_matrix_of_a_sigmoid_learner():
    probs,labels,_ = made_sigmoid()
    items = [(torch.zeros(2), torch.tensor(y).float()) for y in labels]
    dls = DataLoaders(DataLoader(items, bs=500), DataLoader(items, bs=500))
    dls.vocab = ['a', 'b', 'c']
    learn = quiet(Learner(dls, torch.nn.Linear(2, 3), BCEWithLogitsLossFlat()))
    T = learn.noise_matrix(preds=torch.tensor(probs))
    assert list(T.index) == dls.vocab and list(T.columns) == ['miss', 'false_pos']
    assert abs(T.miss['a']-.3) < .06 and set(T.attrs) == {'share', 'n', 'interval'}

def test_how_many_of_the_named_are_wrong():
    for seed in range(3):
        probs,labels,wrong = made(.2, 2000, sharp=3., seed=seed)
        noise = fit_noise(probs, labels)
        named = noise.prob_wrong(probs, labels) > .5
        expected = noise.prob_wrong(probs, labels, likeliest=True)[named].sum()
        assert abs(expected-wrong[named].sum()) < .1*named.sum()
        assert expected < noise.prob_wrong(probs, labels)[named].sum()

@pytest.mark.parametrize('by_class', [False, True])
def test_a_model_that_knows_nothing_names_hardly_anything(by_class):
    rng = np.random.default_rng(0)
    probs,labels = softmax(rng.normal(size=(512, 10))*.1),rng.integers(0, 10, 512)
    with pytest.warns(UserWarning, match='cannot tell which are wrong'): noise = fit_noise(probs, labels, by_class)
    assert (noise.prob_wrong(probs, labels) > .5).mean() < .01
    assert len(np.unique(noise.prob_wrong(probs, labels))) > 500 # a ranking all the same
