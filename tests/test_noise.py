"Finding wrong labels: trainings that leave the learner alone, the noise matrix, the issues"
import warnings
import random
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from pytest import param
from torch import nn, tensor
from fastai.basics import *
from fastai.callback.tracker import SaveModelCallback
from fastai.tabular.all import Normalize, TabularDataLoaders, tabular_learner
from fastai.text.all import AWD_LSTM, TextDataLoaders, text_classifier_learner
from fastai.text.models.awdlstm import awd_lstm_clas_config
from sklearn.datasets import load_breast_cancer
from fastai_labelsmooth.all import *
from fastai_labelsmooth.wrong_labels.refit import refits
from fastai_labelsmooth.wrong_labels.noise import fit_noise
from helpers import digits, digits_dls, digits_learner, items_dls, noisy_digits, quiet, weights

@pytest.fixture(autouse=True)
def _figures():
    yield
    plt.close('all')

def snapshot(learn):
    "All that must be as it was"
    state = {k: (v.copy() if isinstance(v, (list, dict, L)) else v) for k,v in vars(learn).items()}
    cbs = [{k: (v.copy() if isinstance(v, (list, dict)) else v) for k,v in vars(cb).items()}
           for cb in learn.cbs if not isinstance(cb, Fails)]
    rng = torch.get_rng_state().tolist(),np.random.get_state()[1].tolist(),random.getstate()
    opt = None if learn.opt is None else deepcopy(learn.opt.state_dict())
    flags = [p.requires_grad for p in learn.model.parameters()],[m.training for m in learn.model.modules()]
    dls = [dl.rng.getstate() for dl in learn.dls.loaders]
    return state,cbs,rng,str(opt),weights(learn).tolist(),flags,dls,id(learn.loss_func)

class Fails(Callback):
    "Raises in the given training of all that share it"
    def __init__(self, error, at): self.error,self.at,self.count = error,at,[0]
    def __deepcopy__(self, memo):
        res = Fails(self.error, self.at)
        memo[id(self)] = res
        res.count,res.learn = self.count,memo[id(self.learn)] # shared between the twins
        return res
    def before_train(self):
        self.count[0] += 1
        if self.count[0] == self.at: raise self.error

calls = dict(
    eps_find=lambda learn: learn.eps_find(2, eps=(0., .1), show_plot=False),
    eps_find_once=lambda learn: learn.eps_find(2, show_plot=False),
    oof_preds=lambda learn: learn.oof_preds(1, folds=2),
    label_issues=lambda learn: learn.label_issues(folds=2, n_epoch=1),
)

@pytest.mark.parametrize('call', list(calls))
@pytest.mark.parametrize('error', [None, KeyboardInterrupt('stop'), RuntimeError('broken')])
def test_the_learner_is_as_it_was(call, error, tmp_path):
    cbs = [LabelSmooth(.1, 'forward'), SaveModelCallback(monitor='accuracy')]
    if error: cbs.append(Fails(error, 1 if call == 'eps_find_once' else 2))
    learn = digits_learner(cbs, path=tmp_path)
    learn.create_opt()
    before = snapshot(learn)
    if error:
        with pytest.raises(type(error)): calls[call](learn)
    else:
        calls[call](learn)
        if 'eps_find' in call: learn.label_smooth.eps = .1
    assert snapshot(learn) == before
    assert not list(tmp_path.rglob('*.pth'))
    learn.remove_cbs(learn.cbs.filter(lambda cb: isinstance(cb, (Fails, SaveModelCallback))))
    learn.fit(1) # and still trains

def test_each_training_is_the_same_one():
    dls,_ = noisy_digits()
    learn = digits_learner(LabelSmooth(.2, 'forward'), dls=dls)
    with refits(learn, 2, 2) as fit: a,b = fit(),fit()
    assert torch.equal(weights(a), weights(b)) and not torch.equal(weights(a), weights(learn))

def test_a_frozen_body_stays_frozen():
    learn = digits_learner(LabelSmooth(.1, 'forward'), splitter=lambda m: [params(m[0]), params(m[2])])
    learn.freeze()
    with refits(learn, 1, 1) as fit: res = fit()
    assert torch.equal(res.model[0].weight, learn.model[0].weight)
    assert not torch.equal(res.model[2].weight, learn.model[2].weight)

# eps_find

def test_eps_find_finds_noise_and_its_absence():
    for share,low,high in ((.3, .15, .45), (0., 0., .06)):
        dls,_ = noisy_digits(share, 700, 600)
        set_seed(0)
        learn = digits_learner(LabelSmooth(mode='forward'), dls=dls)
        eps,table = learn.eps_find(10, 1e-2, eps=(0., .05, .2, .3))
        assert low <= eps <= high and learn.label_smooth.eps == eps
        assert list(table.columns) == ['nll', 'accuracy'] and table.nll.idxmin() == eps
        assert plt.gcf().axes

def test_eps_find_scores_as_training_does():
    dls,_ = noisy_digits()
    learn = digits_learner(LabelSmooth(.2, 'exact', smooth_valid=True), dls=dls)
    _,table = learn.eps_find(2, 1e-2, eps=(0., .3), show_plot=False)
    for eps in (0., .3):
        one = digits_learner(LabelSmooth(eps), dls=dls)
        with refits(one, 1, 2, 1e-2) as fit: p,y = fit().get_preds()
        assert abs(table.nll[eps]-F.nll_loss(p.log(), y).item()) < 1e-4

def test_eps_find_leaves_out_what_the_mode_cannot_take():
    items = [(x, y%2) for x,y in digits(712)]
    learn = digits_learner(n_out=2, dls=items_dls(items[:512], items[512:], bs=64))
    with pytest.warns(UserWarning, match=r'left out: eps=0\.6 with n=2'):
        eps,table = learn.eps_find(1, eps=(0., .2, .6), show_plot=False)
    assert list(table.index) == [0., .2] and list(table.attrs['left_out']) == [.6]
    assert learn.label_smooth.eps == eps and isinstance(learn.label_smooth.smoother, Forward) # one that joined

def test_eps_find_by_a_metric():
    learn = digits_learner(LabelSmooth(mode='forward'))
    eps,table = learn.eps_find(2, 1e-2, by='accuracy', eps=(0., .3, .8), show_plot=False)
    assert table.accuracy[eps] == table.accuracy.max()

def test_eps_find_of_pairs():
    "40% of the positives are missed: the pair that says so is found"
    x = torch.randn(900, 5)
    truth = (x @ torch.randn(5, 3) > .5).float()
    labels = truth*(torch.rand_like(truth) > .4)
    items = list(zip(x, labels))
    dls = DataLoaders(DataLoader(items[:500], bs=50, shuffle=True), DataLoader(items[500:], bs=100))
    learn = quiet(Learner(dls, nn.Linear(5, 3), BCEWithLogitsLossFlat(), cbs=LabelSmooth((.1, .1), 'forward')))
    eps,_ = learn.eps_find(15, .1, eps=[(0., 0.), (.4, 0.), (0., .4)])
    assert eps == (.4, 0.)
    learn.fit_one_cycle(15, .1)
    found = learn.get_preds()[0] > .5
    assert (found == truth[500:].bool()).float().mean() > .93

@pytest.mark.parametrize('kwargs,message', [
    param(dict(by='f1'), "by='f1': expected 'nll' or a metric of the learner", id='by'),
    param(dict(n_epoch=0), 'n_epoch=0', id='n_epoch'),
    param(dict(eps=()), 'it is empty', id='no eps'),
    param(dict(eps=(.95, 2.)), r'eps=\(0\.95, 2\.0\): expected one or more that can be used', id='no eps to use')])
def test_eps_find_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message): digits_learner(LabelSmooth(mode='forward')).eps_find(**kwargs)

def test_eps_find_of_smoothing_says_that_it_does_not_find_the_share():
    learn = digits_learner(LabelSmooth(.1))
    with pytest.warns(UserWarning, match="amount of smoothing, not the share.*mode='forward'"):
        found = learn.eps_find(1, show_plot=False)
    assert len(found.table) == 6 and found.interval is None

def test_one_eps_is_no_list():
    with pytest.raises(TypeError, match=r'eps=0.1: expected a list of values to train for, \[0.1\]'):
        digits_learner().eps_find(1, eps=.1)

def test_eps_find_needs_an_eps_and_validation_items():
    with pytest.raises(ValueError, match='brings its own amounts'):
        digits_learner(LabelSmooth(mode=Forward(np.eye(10)*.9+.01))).eps_find(1)
    learn = digits_learner()
    learn.dls = DataLoaders(learn.dls.train)
    with pytest.raises(ValueError, match='no validation items'): learn.eps_find(1)

# eps_find by one training

class Counts(Callback):
    "How often it and its copies were trained"
    n = 0
    def before_fit(self): # of a training, not of `get_preds`
        if not hasattr(self, 'gather_preds') and not hasattr(self, '_each_batch'): Counts.n += 1

def counted(learn):
    Counts.n = 0
    learn.add_cb(Counts())
    return learn

@pytest.mark.parametrize('share,low,high', [(.3, .24, .36), (.1, .06, .15), (0., 0., .03)])
def test_one_training_finds_the_share(share, low, high):
    dls,_ = noisy_digits(share, 900, 800)
    learn = counted(digits_learner(dls=dls))
    found = learn.eps_find(12, 1e-2)
    assert Counts.n == 1 and plt.gcf().axes
    assert repr(found).startswith(f'EpsFind(eps={found.eps}, interval=[') and len(repr(found)) < 90
    assert low <= found.eps <= high and found.interval[0] <= found.eps+.001 and found.eps-.001 <= found.interval[1]
    assert learn.label_smooth.eps == found.eps == round(found.eps, 3) and learn.label_smooth.mode == 'forward'
    assert list(found.table.columns) == ['nll'] and found.table.nll.idxmin() == found.eps
    assert found.table.index.is_monotonic_increasing and found.table.attrs['n'] == 800

def test_one_training_is_that_of_hard_labels():
    dls,_ = noisy_digits(.2)
    hard = digits_learner(dls=dls)
    with refits(hard, 1, 3, 1e-2) as fit: p,y = fit().get_preds()
    noise = fit_noise(p, y)
    for cbs in (None, LabelSmooth(.4, 'forward'), LabelSmooth(lambda pct: .3*pct, 'forward')):
        found = digits_learner(cbs, dls=dls).eps_find(3, 1e-2, show_plot=False)
        assert found.eps == pytest.approx(noise.share, abs=2e-3)
        assert found.interval == pytest.approx(noise.interval, abs=2e-3)
        assert found.table.nll[found.eps] == pytest.approx(-noise.curve.log_lik.max()/len(y), abs=1e-3)

@pytest.mark.parametrize('kwargs,cbs,n', [
    (dict(), LabelSmooth(mode='exact'), 6), (dict(by='accuracy'), LabelSmooth(mode='forward'), 6),
    (dict(by='accuracy'), None, 6), (dict(eps=[.1, .2]), LabelSmooth(mode='forward'), 2)],
    ids=['a smoothing mode', 'by a metric', 'by a metric, no LabelSmooth', 'values'])
def test_all_else_trains_for_each(kwargs, cbs, n):
    learn = counted(digits_learner(copy(cbs)))
    found = learn.eps_find(1, show_plot=False, **kwargs)
    assert Counts.n == n == len(found.table) and found.interval is None

def multilabel(miss, false_pos=0.):
    "Three questions about inputs, and labels that are missing or spurious"
    x = torch.randn(1500, 8)
    truth = (x @ torch.randn(8, 3) > .8).float()
    u = torch.rand_like(truth)
    items = list(zip(x, torch.where(truth == 1, u > miss, u < false_pos).float()))
    dls = DataLoaders(DataLoader(items[:900], bs=50, shuffle=True), DataLoader(items[900:], bs=100))
    return quiet(Learner(dls, nn.Linear(8, 3), BCEWithLogitsLossFlat()))

@pytest.mark.parametrize('miss,false_pos', [(.3, 0.), (0., 0.), (.2, .05), (0., .1)])
def test_one_training_finds_a_pair(miss, false_pos):
    learn = counted(multilabel(miss, false_pos))
    found = learn.eps_find(10, .1)
    assert Counts.n == 1 and list(found.table.columns) == ['miss', 'false_pos'] and plt.gcf().axes
    assert abs(found.eps[0]-miss) < .06 and abs(found.eps[1]-false_pos) < .03
    for e,(lo,hi) in zip(found.eps, found.interval): assert lo-.001 <= e <= hi+.001
    assert learn.label_smooth.eps == found.eps
    learn.fit_one_cycle(2, .1)

def test_one_logit():
    items = [(x, y[:1]) for x,y in multilabel(.3).dls.train.dataset]
    for shape in (lambda y: y, lambda y: y[0]):
        some = [(x, shape(y)) for x,y in items]
        dls = DataLoaders(DataLoader(some[:500], bs=50, shuffle=True), DataLoader(some[500:], bs=100))
        learn = quiet(Learner(dls, nn.Linear(8, 1), BCEWithLogitsLossFlat()))
        assert abs(learn.eps_find(10, .1, show_plot=False).eps[0]-.3) < .15

def masks(share, n=60):
    "Four classes by colour, wrong pixels, and a border that does not count"
    y = torch.randint(0, 4, (n, 3, 3)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    x = F.one_hot(y, 4).permute(0, 3, 1, 2).float() + torch.randn(n, 4, 12, 12)*.4
    seen = torch.where(torch.rand(y.shape) < share, (y + torch.randint(1, 4, y.shape))%4, y)
    seen[:, 0] = 255
    items = list(zip(x, seen))
    dls = DataLoaders(DataLoader(items[:30], bs=10, shuffle=True), DataLoader(items[30:], bs=10))
    return quiet(Learner(dls, nn.Conv2d(4, 4, 1), CrossEntropyLossFlat(axis=1, ignore_index=255)))

def test_pixels_are_labels_too(monkeypatch):
    import fastai_labelsmooth.wrong_labels.eps_find as module
    found = masks(.25).eps_find(10, .1, show_plot=False)
    assert abs(found.eps-.25) < .03 and found.table.attrs['n'] == 30*11*12
    monkeypatch.setattr(module, 'max_positions', 500)
    found = masks(.25).eps_find(10, .1, show_plot=False)
    assert abs(found.eps-.25) < .1 and found.table.attrs['n'] == 500

def test_predictions_that_say_nothing_leave_hard_labels():
    learn = digits_learner(LabelSmooth(.3, 'forward'))
    for p in learn.model.parameters(): nn.init.zeros_(p)
    with pytest.warns(UserWarning, match='eps=0 is set'): found = learn.eps_find(1, 0.)
    assert found.eps == learn.label_smooth.eps == 0. and found.interval[1] > .8
    learn = multilabel(.3)
    for p in learn.model.parameters(): nn.init.zeros_(p)
    with pytest.warns(UserWarning, match='eps=0 is set'): found = learn.eps_find(1, 0.)
    assert found.eps == learn.label_smooth.eps == (0., 0.)

def test_the_target_of_the_labelsmooth_is_looked_at():
    items = [(x, torch.rand(2), y) for x,y in noisy_digits(.3, 900, 800)[0].train.dataset]
    dls = DataLoaders(DataLoader(items[:500], bs=50, shuffle=True), DataLoader(items[500:], bs=100))
    dls.n_inp = 1
    learn = digits_learner(LabelSmooth(mode='forward', targ_idx=1), SecondTarget(), dls=dls)
    learn.metrics = L()
    assert abs(learn.eps_find(15, 1e-2, show_plot=False).eps-.3) < .12

class SecondTarget(Module):
    soft_targets = True
    def forward(self, p, a, b): return soft_cross_entropy(p, b)

def changed(change, loss_func=None):
    "A digits learner with other targets"
    def of(dl): return DataLoader([(x, change(y)) for x,y in dl.dataset], bs=64, num_workers=0)
    learn = digits_learner(loss_func=loss_func, dls=DataLoaders(*map(of, digits_dls())))
    learn.metrics = L()
    return learn

def regression():
    learn = changed(lambda y: y.float())
    learn.loss_func = MSELossFlat()
    return learn

def some_votes(y): return F.one_hot(y, 10)*.5+.05

refused = {
    'votes': (lambda: changed(some_votes, VotesLossFlat()), 'targets are votes'),
    'votes of labels': (lambda: changed(some_votes, BCEWithLogitsLossFlat()), 'targets are votes'),
    'one class': (lambda: changed(lambda y: y*0), '200 validation labels that count are all the same'),
    'no ones': (lambda: changed(lambda y: torch.zeros(10), BCEWithLogitsLossFlat()), '2000 validation labels'),
    'none counts': (lambda: changed(lambda y: y*0-100), 'the 0 validation labels'),
    'regression': (regression, 'expected one of CrossEntropyLossFlat'),
    'labels out of range': (lambda: changed(lambda y: y+1), '10'),
}

@pytest.mark.parametrize('name', list(refused))
def test_refused_before_anything_is_trained(name):
    make,message = refused[name]
    learn = counted(make())
    before = weights(learn)
    with pytest.raises((TypeError, ValueError), match=message): learn.eps_find(1)
    assert not Counts.n and not learn._grab_cbs(LabelSmooth) and torch.equal(weights(learn), before)
    if 'votes' in name:
        with pytest.raises(ValueError, match=message): learn.eps_find(1, eps=[0., .1])
        assert not Counts.n
        learn.add_cb(LabelSmooth(mode='exact')) # says how sure to be, which is asked of votes too
        assert len(learn.eps_find(1, eps=[0., .1], show_plot=False).table) == 2

def test_votes_of_one_person_are_labels():
    learn = changed(lambda y: F.one_hot(y, 10).float(), VotesLossFlat())
    learn.metrics = L()
    assert learn.eps_find(10, 1e-2, show_plot=False).eps < .05

# Out of fold

class Seen(Callback):
    "The items, known by their first value, of each training and each prediction"
    log = []
    def before_fit(self):
        if not hasattr(self, 'gather_preds'): Seen.log.append((set(), set()))
    def after_batch(self): Seen.log[-1][0 if self.training else 1].update(self.x[:, 0].tolist())

def test_out_of_fold_predictions_are_by_models_that_did_not_see_the_item():
    items = [(torch.cat([tensor([float(i)]), torch.randn(3)]), tensor(i%3)) for i in range(50)]
    dls = DataLoaders(DataLoader(items, bs=8, shuffle=True), DataLoader([(x-1e6, y) for x,y in items[:4]], bs=4))
    model = nn.Linear(4, 3)
    learn = quiet(Learner(dls, model, CrossEntropyLossFlat(), cbs=Seen()))
    Seen.log = []
    preds,targs = learn.oof_preds(folds=4, n_epoch=1, lr=0.)
    assert targs.tolist() == [i%3 for i in range(50)]
    want = model(torch.stack([x for x,_ in items])).softmax(1).detach() # in order, as lr is 0
    assert torch.allclose(preds, want, atol=1e-6)
    predicted = set()
    for trained,held in Seen.log:
        held = {o for o in held if o >= 0}
        assert len(Seen.log) == 4 and not trained & held and trained | held == set(map(float, range(50)))
        predicted |= held
    assert predicted == set(map(float, range(50)))

def test_a_trained_learner_is_warned_of():
    learn = digits_learner()
    learn.fit(1)
    with pytest.warns(UserWarning, match='has been trained already'): learn.oof_preds(1, folds=2)

def test_bad_folds():
    for folds in (1, 2.5, 1000):
        with pytest.raises(ValueError, match=f'folds={folds}'): digits_learner().oof_preds(folds=folds)

# The noise matrix

def random_preds(n=400, k=4, seed=0, share=.25):
    rng = np.random.default_rng(seed)
    clean = rng.integers(k, size=n)
    labels = np.where(rng.random(n) < share, (clean+1)%k, clean)
    z = rng.normal(size=(n, k)) + 3*np.eye(k)[clean]
    probs = np.exp(z)
    return probs/probs.sum(1, keepdims=True),labels

def test_noise_matrix_of_a_learner():
    dls,_ = noisy_digits(.2, 1000, 400)
    dls.vocab = [f'digit {i}' for i in range(10)]
    learn = digits_learner(LabelSmooth(.2, 'forward'), dls=dls)
    preds = learn.oof_preds(15, 1e-2, folds=3)
    T = learn.noise_matrix(preds=preds)
    assert list(T.index) == list(T.columns) == dls.vocab
    assert abs(T.attrs['share']-.2) < .05 and T.attrs['n'] == 1000
    again = learn.noise_matrix(preds=preds[0].numpy(), show_plot=False) # of any model: the labels are looked up
    pd.testing.assert_frame_equal(T, again)
    learn = digits_learner(LabelSmooth(mode=Forward(T)), dls=dls)
    learn.fit_one_cycle(3, 1e-2)
    with pytest.warns(UserWarning, match='fewer than 50 items are labelled'): learn.noise_matrix()
    with pytest.warns(UserWarning, match='can hardly tell the classes apart'):
        learn.noise_matrix(preds=(torch.randn(1000, 10).softmax(1), preds[1]), show_plot=False)

def test_bad_predictions():
    learn = digits_learner(LabelSmooth(mode='forward'))
    p = torch.full((512, 10), .1)
    for preds,message in (
        (p[:5], '5 items: expected one row for each of the 512'),
        (p*2, 'do not sum to 1: expected probabilities'),
        (p/float('nan'), r'outside \[0, 1\], or NaN: expected probabilities')):
        with pytest.raises(ValueError, match=message): learn.noise_matrix(preds=preds)
    multi = digits_learner(loss_func=BCEWithLogitsLossFlat())
    with pytest.raises(ValueError, match='one label for each probability'): multi.noise_matrix(preds=p)

def test_tabular_learner():
    "fastai's tabular `DataLoader` draws with replacement, and has names for the classes"
    d = load_breast_cancer(as_frame=True)
    df = d.data.iloc[:, :8].copy()
    rng = np.random.default_rng(0)
    wrong = rng.random(len(df)) < .2
    df['y'] = np.array(['benign', 'malignant'])[np.where(wrong, d.target, 1-d.target)]
    dls = TabularDataLoaders.from_df(df, procs=[Normalize], cont_names=list(df.columns[:8]), y_names='y',
                                     valid_idx=list(range(450, 569)), bs=64)
    learn = quiet(tabular_learner(dls, layers=[50], metrics=accuracy, cbs=LabelSmooth(mode='forward')))
    eps,table = learn.eps_find(5, 1e-2, eps=(0., .2), show_plot=False)
    issues = learn.label_issues(folds=3, n_epoch=10, lr=1e-2)
    assert set(issues.label) <= {'benign', 'malignant'}
    assert wrong[issues.source].mean() > .6
    learn.dls = without(learn.dls, issues)
    learn.fit_one_cycle(1)
    assert len(learn.get_preds(0)[0]) == 450-len(issues)

@pytest.mark.slow
def test_text_learner():
    "A recurrent net keeps earlier results, its data are sorted by length, its vocabulary is not the classes"
    texts = [('good ', 'bad ')[i%2]*(i%7+1)+'film' for i in range(60)]
    df = pd.DataFrame(dict(text=texts, label=['pos', 'neg']*30))
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', valid_pct=.3, seed=1, bs=8)
    config = dict(awd_lstm_clas_config, emb_sz=8, n_hid=8, n_layers=2)
    learn = quiet(text_classifier_learner(dls, AWD_LSTM, pretrained=False, config=config, metrics=accuracy))
    before = weights(learn)
    preds,targs = learn.oof_preds(1, 1e-2, folds=2)
    assert targs.tolist() == [int(y) for _,y in dls.train.dataset]
    issues = learn.label_issues(folds=2, n_epoch=1, lr=1e-2)
    assert set(issues.label) <= {'pos', 'neg'} and torch.equal(weights(learn), before)

# Two ways to say it, and calibration

def test_eps_from_noise_by_counting():
    rng = np.random.default_rng(0)
    truth = rng.random(400_000) < .3
    seen = np.where(truth, rng.random(len(truth)) > .4, rng.random(len(truth)) < .1)
    e1,e0 = eps_from_noise(.4, .1, .3)
    assert abs(e1-(~truth[seen]).mean()) < .005 and abs(e0-truth[~seen].mean()) < .005
    for args,message in (((1., 0., .3), 'miss=1.0'), ((.6, .5, .3), 'sum below 1'), ((.1, .1, 1.), 'prior=1.0')):
        with pytest.raises(ValueError, match=message): eps_from_noise(*args)

def test_two_numbers_of_a_sigmoid_loss_are_asked_back():
    "A pair, as `LabelSmooth` takes it, or two values to try?"
    items = [(torch.randn(4), torch.randint(0, 2, (3,)).float()) for _ in range(32)]
    learn = quiet(Learner(items_dls(items, shuffle=True), nn.Linear(4, 3), BCEWithLogitsLossFlat()))
    says = r'eps=\(0.3, 0.0\).*Expected \[\(0.3, 0.0\)\] or \[0.3, 0.0\]'
    with pytest.raises(ValueError, match=says): learn.eps_find(1, eps=(.3, 0.))
    assert not learn._grab_cbs(LabelSmooth)
    assert len(learn.eps_find(1, eps=[.3, 0.], show_plot=False).table) == 2
    assert list(learn.eps_find(1, eps=[(.3, 0.)], show_plot=False).table.index) == [(.3, 0.)]

def test_the_matrix_of_a_learner_that_knows_nothing():
    learn = digits_learner()
    with pytest.warns(UserWarning, match='neither trained nor loaded'): learn.noise_matrix(show_plot=False)
    learn.fit(1)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        learn.noise_matrix(show_plot=False)
    assert not [o for o in seen if 'neither trained' in str(o.message)]
