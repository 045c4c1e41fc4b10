"LabelSmooth on real Learners: what it trains, what everybody else sees, and what is left after any interruption"
import gc, math, sys, warnings, weakref
from functools import lru_cache
import pytest, torch, torch.nn.functional as F
from pytest import param
from torch.testing import assert_close
from fastai.vision.all import *
import fastai_labelsmooth
from fastai_labelsmooth.all import *
from helpers import digits, digits_dls, digits_learner, items_dls, items_learner, quiet, weights

class SpyLoss:
    "A loss that keeps the targets it was given"
    soft_targets,reduction = True,'mean'
    def __init__(self): self.seen = []
    def __call__(self, pred, targ):
        self.seen.append(targ)
        return soft_cross_entropy(pred, targ, reduction=self.reduction)

@pytest.mark.parametrize('eps', [.1, .3])
def test_paper_mode_trains_what_torch_trains(eps):
    a = digits_learner(LabelSmooth(eps, 'paper'), nn.CrossEntropyLoss())
    b = digits_learner(None, nn.CrossEntropyLoss(label_smoothing=eps))
    for learn in (a, b):
        set_seed(1)
        learn.fit_one_cycle(2, 1e-2)
    assert_close(weights(a), weights(b), rtol=1e-4, atol=1e-5)
    plain = digits_learner(None, nn.CrossEntropyLoss())
    set_seed(1)
    plain.fit_one_cycle(2, 1e-2)
    assert (weights(a)-weights(plain)).abs().max() > 100*(weights(a)-weights(b)).abs().max()

def test_exact_is_paper_at_the_converted_eps():
    res = []
    for mode,eps in (('exact', .1), ('paper', convert_eps(.1, 10, to='paper'))):
        learn = digits_learner(LabelSmooth(eps, mode))
        set_seed(1)
        learn.fit(1)
        res.append(weights(learn))
    assert_close(*res, rtol=1e-5, atol=1e-6)

def test_soft_in_training_hard_in_validation():
    loss = SpyLoss()
    digits_learner(LabelSmooth(.1), loss).fit(1)
    n = len(digits_dls().train)
    assert [type(o) for o in loss.seen[:n]] == [SoftTarget]*n
    assert {type(o) for o in loss.seen[n:]} == {Tensor} and len(loss.seen) > n
    assert (loss.seen[0].on, loss.seen[0].off) == on_off(.1, 10)

def test_smooth_valid_smooths_validation():
    loss = SpyLoss()
    digits_learner(LabelSmooth(.1, smooth_valid=True), loss).validate()
    assert {type(o) for o in loss.seen} == {SoftTarget}

def test_valid_loss_is_the_plain_cross_entropy():
    learn = digits_learner(LabelSmooth(.3))
    learn.fit(1)
    learn.model.eval()
    x,y = map(torch.stack, zip(*learn.dls.valid_ds))
    assert learn.validate()[0] == pytest.approx(F.cross_entropy(learn.model(x), y).item(), rel=1e-5)

def test_get_preds_of_a_raw_torch_loss_are_probabilities():
    learn = digits_learner(LabelSmooth(), nn.CrossEntropyLoss())
    learn.fit(1)
    probs,targs,losses = learn.get_preds(with_loss=True)
    assert_close(probs.sum(1), torch.ones(len(probs)))
    assert_close(losses, -probs[range(len(probs)), targs].log(), rtol=1e-4, atol=1e-5)
    assert learn.loss_func.reduction == 'mean'
    assert learn.get_preds(with_decoded=True)[2].equal(probs.argmax(1))

def test_the_optimum_is_where_it_says():
    "One input and 10 classes: the model can only learn the target, and does within 400 batches"
    dls = items_dls([(torch.ones(4), torch.tensor(0))]*100, [(torch.ones(4), torch.tensor(0))], bs=1)
    for mode in ('exact', 'paper'):
        learn = quiet(Learner(dls, nn.Linear(4, 10), CrossEntropyLossFlat(), cbs=LabelSmooth(.1, mode), opt_func=SGD))
        learn.fit(4, 2., wd=0.)
        p,z = learn.get_preds()[0][0],learn.get_preds(act=noop)[0][0]
        assert p[0].item() == pytest.approx(on_off(.1, 10, mode)[0], abs=2e-3)
        assert (z[0]-z[1:].mean()).item() == pytest.approx(logit_gap(.1, 10, mode), abs=2e-2)

# What everybody else sees

inner = 'before_batch after_pred after_loss before_backward after_backward before_step after_step after_batch'.split()
every = inner + 'before_epoch before_train after_train before_validate after_validate after_epoch after_fit'.split()

@pytest.mark.parametrize('order', [-20, 0, 50, 99, 1000])
def test_hard_targets_at_every_event(order):
    seen = {}
    class Look(Callback): pass
    look = Look()
    look.order = order
    def note(event): seen.setdefault((event, look.training), set()).add(type(look.learn.yb[0]))
    for e in inner: setattr(look, e, partial(note, e))
    learn = digits_learner(LabelSmooth())
    learn.fit(1, cbs=look)
    soft = {k for k,v in seen.items() if SoftTarget in v}
    # those that come later see it before the loss, those that come earlier just after it
    assert soft == {('after_pred' if order > LabelSmooth.order else 'after_loss', True)}
    assert len(seen) == len(inner) + 4 # validation has four of these events

def test_metrics_see_hard_targets():
    kinds = []
    def kind(pred, targ):
        kinds.append(type(targ))
        return accuracy(pred, targ)
    learn = digits_learner(LabelSmooth(smooth_valid=True))
    learn.metrics = kind
    learn.recorder.train_metrics = True
    learn.fit(1)
    assert set(kinds) == {Tensor}

def raiser(event, exc, order=0, at=3):
    "A callback that raises `exc` the `at`-th time that `event` comes"
    class Raise(Callback):
        count = 0
        def __init__(self): self.order = order
    def f(self):
        self.count += 1
        if self.count == at: raise exc
    setattr(Raise, event, f)
    return Raise()

def still_works(learn, loss_func):
    assert learn.loss_func is loss_func
    before = weights(learn).clone()
    learn.fit(1)
    assert not torch.equal(weights(learn), before)
    assert learn.loss_func is loss_func
    probs,_ = learn.get_preds()
    assert_close(probs.sum(1), torch.ones(len(probs)))

def trained_anew(learn):
    "The weights after a fit from the same start"
    start = digits_learner()
    learn.dls,learn.opt = start.dls,None
    learn.model.load_state_dict(start.model.state_dict())
    learn.model.zero_grad() # which fastai leaves where a step is interrupted
    set_seed(1)
    learn.fit(1)
    return weights(learn)

@lru_cache(maxsize=None)
def uninterrupted(mode):
    "The weights of a Learner that nothing has interrupted"
    return trained_anew(digits_learner(LabelSmooth(.2, mode)))

@pytest.mark.parametrize('event', inner)
@pytest.mark.parametrize('exc', [CancelBatchException, CancelFitException, KeyboardInterrupt])
@pytest.mark.parametrize('order', [0, 1000])
@pytest.mark.parametrize('mode', ['exact', 'forward'])
def test_an_interruption_leaves_no_trace(event, exc, order, mode):
    "A batch replaces only its own targets and prediction, so one exception of each kind is enough"
    learn = digits_learner(LabelSmooth(.2, mode))
    loss_func = learn.loss_func
    try: learn.fit(1, cbs=raiser(event, exc, order))
    except (KeyboardInterrupt, CancelBatchException): pass # fastai catches the latter only where it is due
    assert learn.loss_func is loss_func
    assert trained_anew(learn).equal(uninterrupted(mode))
    assert_close(learn.get_preds()[0].sum(1), torch.ones(200))

@pytest.mark.parametrize('exc', [KeyboardInterrupt, ZeroDivisionError])
def test_a_loss_that_raises_leaves_a_learner_that_works(exc):
    class Loss(SpyLoss):
        def __call__(self, pred, targ):
            if len(self.seen) == 3:
                self.seen.append(None)
                raise exc
            return super().__call__(pred, targ)
        def activation(self, x): return x.softmax(1)
    loss = Loss()
    learn = digits_learner(LabelSmooth(), loss)
    with pytest.raises(exc): learn.fit(1)
    still_works(learn, loss)

def test_the_loss_comes_back_after_an_interrupted_mixup():
    "fastai's MixUp leaves its own loss in an interrupted Learner"
    learn = digits_learner(LabelSmooth())
    loss_func,mix = learn.loss_func,MixUp()
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=[mix, raiser('after_loss', KeyboardInterrupt)])
    assert learn.loss_func is not loss_func
    learn.fit(1)
    assert learn.loss_func is loss_func

# With the rest of fastai's core

def test_lr_find_and_fits():
    learn = digits_learner(LabelSmooth())
    assert learn.lr_find(show_plot=False, num_it=20).valley > 0
    learn.fit_one_cycle(4, 1e-2)
    learn.fine_tune(2)
    assert learn.validate()[1] > .7

def name_of(f): return f.split('_')[0]

@pytest.fixture(scope='module')
def image_learn(tmp_path_factory):
    "A trained Learner on digits as image files, with names for classes"
    from sklearn.datasets import load_digits
    path,d,names = tmp_path_factory.mktemp('digits'),load_digits(),['zero', 'one', 'two']
    for i,(im,y) in enumerate(zip(d.images[:600], d.target)):
        if y < 3: PILImage.create((im*15.9).astype('uint8')).resize((32, 32)).save(path/f'{names[y]}_{i}.png')
    dls = ImageDataLoaders.from_name_func(path, sorted(get_image_files(path)), valid_pct=.3, seed=0, bs=16,
                                          num_workers=0, label_func=name_of, batch_tfms=[Flip(p=.5)])
    set_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 3))
    learn = quiet(Learner(dls, model, metrics=accuracy, cbs=LabelSmooth(.1), path=path))
    learn.fit_one_cycle(4, 1e-2)
    return learn

def test_predict_names_the_most_probable_class(image_learn):
    item = image_learn.dls.valid_ds.items[0]
    name,idx,probs = image_learn.predict(item)
    assert name == image_learn.dls.vocab[idx] and idx == probs.argmax()
    assert probs.sum().item() == pytest.approx(1, abs=1e-5)

def test_a_test_dl_has_predictions_and_no_targets(image_learn):
    items = image_learn.dls.valid_ds.items[:5]
    probs,none = image_learn.get_preds(dl=image_learn.dls.test_dl(items))
    assert none is None
    assert_close(probs, image_learn.get_preds()[0][:5])
    top = image_learn.topk(2, dl=image_learn.dls.test_dl(items))
    assert list(top) == ['source', 'pred_1', 'prob_1', 'pred_2', 'prob_2']

def test_interpretation_shows_unsmoothed_losses(image_learn):
    interp = ClassificationInterpretation.from_learner(image_learn)
    assert interp.confusion_matrix().sum() == len(image_learn.dls.valid_ds)
    losses,_ = interp.top_losses(3)
    probs,targs = image_learn.get_preds()
    assert_close(losses, (-probs[range(len(probs)), targs].log()).topk(3).values, rtol=1e-3, atol=1e-4)
    interp.plot_top_losses(3)
    interp.plot_confusion_matrix()

def test_tta_gives_probabilities_and_results_are_shown(image_learn):
    probs,_ = image_learn.tta(n=2)
    assert_close(probs.sum(1), torch.ones(len(probs)))
    image_learn.show_results(max_n=2)

def test_fine_tune_keeps_the_loss(image_learn):
    a = image_learn.loss_func
    image_learn.fine_tune(1)
    assert image_learn.loss_func is a and type(a) is SoftCrossEntropyLossFlat

def test_a_loaded_export_predicts_the_same(image_learn, tmp_path):
    items = image_learn.dls.valid_ds.items[:4]
    want = image_learn.get_preds(dl=image_learn.dls.test_dl(items))[0]
    image_learn.export(tmp_path/'learn.pkl')
    again = load_learner(tmp_path/'learn.pkl')
    again.remove_cb(ProgressCallback)
    assert_close(again.get_preds(dl=again.dls.test_dl(items))[0], want)
    assert (again.label_smooth.eps, again.label_smooth.mode) == (.1, 'exact')

def test_loaded_weights_predict_the_same(image_learn):
    probs = image_learn.get_preds()[0]
    image_learn.save('m')
    image_learn.load('m')
    assert_close(image_learn.get_preds()[0], probs)

def test_trackers_stop_early_save_and_log(tmp_path):
    learn = digits_learner(LabelSmooth(), path=tmp_path)
    early = EarlyStoppingCallback(patience=1, min_delta=10.)
    learn.fit(5, 1e-2, cbs=[early, SaveModelCallback(), CSVLogger(), ReduceLROnPlateau()])
    assert (tmp_path/'models/model.pth').exists() and (tmp_path/'history.csv').exists()
    assert len(learn.recorder.values) < 5

def test_accumulated_and_clipped_batches_are_one_large_batch():
    "Accumulating batches of 16 to 64 is training with batches of 64"
    res = []
    for bs,cbs in ((16, [GradientAccumulation(64)]), (64, [])):
        learn = digits_learner([LabelSmooth(), GradientClip(.5), *cbs], dls=items_dls(digits(64), bs=bs), opt_func=SGD)
        learn.fit(2, .1)
        res.append(weights(learn))
    assert_close(*res, rtol=1e-4, atol=1e-5)

def test_a_custom_smoother_gets_what_it_needs():
    calls = []
    def mode(targ, batch):
        pred,task = batch.pred,batch.task
        calls.append((targ.shape, pred.shape, pred.requires_grad, batch.eps, task, batch.xb[0].shape))
        return smooth_labels(targ, task.n, batch.eps/2, axis=task.axis, ignore_index=task.ignore_index)
    a = digits_learner(LabelSmooth(.2, mode=mode))
    b = digits_learner(LabelSmooth(.1))
    for learn in (a, b):
        set_seed(1)
        learn.fit(2)
    assert_close(weights(a), weights(b))
    assert calls[0] == ((64,), (64, 10), False, .2, Task(10, 1, -100, False), (64, 64))

class Counts(Smoother):
    "Smooths nothing, and counts what it is told"
    def __init__(self): self.updates,self.epochs = 0,0
    def __call__(self, targ, batch): return smooth_labels(targ, batch.task.n, 0.)
    def update(self, targ, batch): self.updates += 1
    def after_epoch(self): self.epochs += 1

@pytest.mark.parametrize('cbs', [[], [MixUp()]], ids=['alone', 'with MixUp'])
def test_a_smoother_that_learns_is_told_once_a_training_batch(cbs):
    learn = digits_learner(LabelSmooth(mode=Counts()))
    counts = learn.label_smooth.smoother # a copy
    learn.fit(2, cbs=cbs)
    assert (counts.updates, counts.epochs) == (16, 2)
    learn.validate()
    learn.get_preds()
    learn.lr_find(show_plot=False, num_it=5)
    assert (counts.updates, counts.epochs) == (16, 2)

def test_one_hot_targets_train_as_class_indices():
    hard = digits()
    dense = [(x, F.one_hot(y, 10).float()) for x,y in hard]
    res = []
    for items in (dense, hard):
        learn = digits_learner(LabelSmooth(), dls=items_dls(items, bs=64))
        learn.metrics = []
        learn.fit(1)
        res.append(weights(learn))
    assert_close(*res, rtol=1e-4, atol=1e-5)

def test_ignore_index_comes_from_the_loss():
    items = [(x, y if i%2 else torch.tensor(255)) for i,(x,y) in enumerate(digits())]
    res = []
    for d in (items_dls(items, bs=64), items_dls(items[1::2], bs=32)):
        learn = digits_learner(LabelSmooth(), CrossEntropyLossFlat(ignore_index=255), dls=d)
        learn.metrics = []
        learn.fit(1)
        res.append(weights(learn))
    assert_close(*res, rtol=1e-4, atol=1e-5)

def test_targets_elsewhere_are_checked_once_a_fit(monkeypatch):
    "A device that is not the CPU is checked on the first batch only: every check would wait for it"
    learn,cpu_calls = digits_learner(LabelSmooth()),[]
    class Elsewhere(Tensor):
        "A CPU tensor that says it is somewhere else"
        device = property(lambda self: torch.device('meta'))
        def cpu(self):
            cpu_calls.append(1)
            return self.as_subclass(Tensor)
    class Move(Callback):
        order = 50 # after fastai casts to plain tensors
        def before_batch(self): self.learn.yb = (self.y.as_subclass(Elsewhere),)
    checked = []
    monkeypatch.setattr('fastai_labelsmooth.callback.hard_target', lambda targ, task: checked.append(type(targ)))
    learn.add_cb(Move())
    learn.metrics = []
    learn.fit(2)
    assert len(cpu_calls) == 1 and checked == [Tensor]

# Bad input: an error that says what was wrong and what is accepted, and a Learner that is as it was

def to_text(pct): return 'a'

@pytest.mark.parametrize('args,kw,error,says', [
    param((-.1,), {}, ValueError, r'eps=-0.1.*0 <= eps < 1', id='eps below 0'),
    param((1,), {}, ValueError, 'eps=1', id='eps is 1'),
    param((1.5,), {}, ValueError, 'eps=1.5', id='eps above 1'),
    param((math.nan,), {}, ValueError, 'eps=nan', id='eps is nan'),
    param((math.inf,), {}, ValueError, 'eps=inf', id='eps is inf'),
    param(('0.1',), {}, TypeError, "eps='0.1'", id='eps is text'),
    param((True,), {}, TypeError, 'eps=True', id='eps is a bool'),
    param(((.1, .2, .3),), {}, ValueError, 'pair', id='three eps'),
    param(((.6, .5),), {}, ValueError, 'sum below 1', id='pair sums to more than 1'),
    param(((-.1, .5),), {}, ValueError, 'eps=-0.1', id='pair below 0'),
    param((('a', .5),), {}, TypeError, "eps='a'", id='pair with text'),
    param((SchedCos(.1, 1.5),), {}, ValueError, r'schedule eps=.*gives at 60% of training eps=1\.0', id='schedule'),
    param((to_text,), {}, TypeError, "gives at 0% of training eps='a'", id='schedule of text'),
    param((.1, 'other'), {}, ValueError, "mode='other'.*'exact' or 'paper'", id='unknown mode'),
    param((.1, 3), {}, TypeError, 'mode=3.*callable', id='mode is a number'),
    param((.1, None), {}, TypeError, 'mode=None', id='mode is None'),
    param((.5,), dict(n=2), ValueError, r'eps=0.5 with n=2.*0\.5', id='eps too large for two classes'),
    param((.1,), dict(n=1), ValueError, 'n=1', id='one class'),
    param((.1,), dict(n='3'), ValueError, "n='3'", id='n is text'),
    param((.1,), dict(targ_idx='0'), TypeError, "targ_idx='0'", id='targ_idx is text'),
    param((.1, 'exact', True), {}, TypeError, 'positional', id='three positional arguments')])
def test_a_wrong_argument_is_refused_in_words(args, kw, error, says):
    with pytest.raises(error, match=says): LabelSmooth(*args, **kw)

flat,smoothing = CrossEntropyLossFlat(),nn.CrossEntropyLoss(label_smoothing=.2)

@pytest.mark.parametrize('cb,loss,error,says', [
    param(lambda: LabelSmooth((.05, .001)), flat, ValueError, r'eps=\(0.05, 0.001\).*sigmoid', id='pair'),
    param(lambda: LabelSmooth(), nn.MSELoss(), TypeError, 'MSELoss.*soft_targets', id='MSELoss'),
    param(lambda: LabelSmooth(), MSELossFlat(), TypeError, 'expected one of', id='MSELossFlat'),
    param(lambda: LabelSmooth(), smoothing, ValueError, 'by itself.*smoothed twice', id='torch'),
    param(lambda: LabelSmooth(), LabelSmoothingCrossEntropy(eps=0.), ValueError, 'smoothed twice', id='fastai'),
    param(lambda: LabelSmooth(), LabelSmoothingCrossEntropyFlat(), ValueError, 'smoothed twice', id='fastai flat'),
    param(lambda: LabelSmooth(.5), BCEWithLogitsLossFlat(), ValueError, 'eps=0.5', id='sigmoid'),
    param(lambda: LabelSmooth(), nn.NLLLoss(), TypeError, 'NLLLoss', id='NLLLoss'),
    param(lambda: LabelSmooth(), FocalLossFlat(), TypeError, 'counterpart', id='focal'),
    param(lambda: [LabelSmooth(), LabelSmooth(.2)], flat, ValueError, r'already.*`learn.remove_cb\(Lab', id='two')])
def test_a_loss_that_cannot_be_paired_is_refused_in_words(cb, loss, error, says):
    with pytest.raises(error, match=says): digits_learner(cb(), loss)
    learn = digits_learner(None, loss)
    before = weights(learn).clone()
    with pytest.raises(error, match=says): learn.fit(1, cbs=cb())
    assert learn.loss_func is loss and torch.equal(weights(learn), before)
    with pytest.raises(error, match=says): learn.get_preds(cbs=cb())
    assert learn.loss_func is loss

def bad_learner(y, loss_func=None, n_out=10, cb=None):
    items = list(zip(torch.rand(len(y), 64), y))
    return digits_learner(cb or LabelSmooth(), loss_func, dls=items_dls(items, bs=len(y)), n_out=n_out)

T = torch.tensor
ignores_9,weighs_3 = CrossEntropyLossFlat(ignore_index=9),CrossEntropyLossFlat(weight=torch.ones(3))
ce,bce,flat_bce = nn.CrossEntropyLoss(),nn.BCEWithLogitsLoss(),BCEWithLogitsLossFlat()

@pytest.mark.parametrize('y,kw,error,says', [
    param(T([0, 10]), {}, ValueError, 'class index 10.*0 to 9', id='index too large'),
    param(T([0, -1]), {}, ValueError, 'class index -1', id='index below 0'),
    param(T([0, 255]), {}, ValueError, 'class index 255.*ignore_index=-100', id='another ignore_index'),
    param(T([0, -100]), dict(loss_func=ignores_9), ValueError, 'class index -100', id='default ignore_index'),
    param(torch.full((2, 10), math.nan), {}, ValueError, r'targ.*nan.*\[0, 1\]', id='votes of nan'),
    param(torch.full((2, 10), 1.5), {}, ValueError, r'targ.*1.5.*\[0, 1\]', id='votes above 1'),
    param(torch.rand(2, 7), {}, ValueError, r'shape \(2, 7\).*n=10', id='votes for 7 classes'),
    param(torch.rand(2), {}, ValueError, r'shape \(2,\).*n=10', id='a float an item'),
    param(torch.rand(2), dict(loss_func=ce), ValueError, r'shape \(2,\).*n=10', id='a float an item, torch'),
    param(T([0, 1]), dict(loss_func=weighs_3), ValueError, r'weight has shape \(3,\).*10 classes', id='3 weights'),
    param(torch.zeros(2, 3, dtype=torch.long), {}, ValueError, r'shape \(2, 3\).*\(2,\)', id='three indices an item'),
    param(T([0, 0]), dict(n_out=1), ValueError, r'n=1 classes.*BCEWithLogitsLossFlat', id='one class'),
    param(T([0, 1]), dict(n_out=2, cb=lambda: LabelSmooth(.5)), ValueError, r'eps=0.5 with n=2.*0\.5', id='eps for 2'),
    param(T([0, 1]), dict(cb=lambda: LabelSmooth(.9)), ValueError, 'eps=0.9 with n=10.*0.9', id='eps for 10'),
    param(T([0, 1]), dict(cb=lambda: LabelSmooth(targ_idx=1)), ValueError, 'targ_idx=1.*1 targets', id='targ_idx'),
    param(T([0, 1]), dict(cb=lambda: LabelSmooth(targ_idx=-2)), ValueError, 'targ_idx=-2', id='targ_idx below 0'),
    param(torch.full((2, 10), 2.), dict(loss_func=flat_bce), ValueError, r'targ.*2.*\[0, 1\]', id='labels of 2'),
    param(torch.full((2, 10), math.nan), dict(loss_func=bce), ValueError, 'targ.*nan', id='labels of nan'),
    param(torch.zeros(2, 7), dict(loss_func=flat_bce), ValueError, r'shape \(2, 7\).*\(2, 10\)', id='7 labels for 10')])
def test_a_wrong_target_is_refused_in_words(y, kw, error, says):
    if 'cb' in kw: kw = {**kw, 'cb': kw['cb']()}
    learn = bad_learner(y, **kw)
    loss_func,before = learn.loss_func,weights(learn).clone()
    with pytest.raises(error, match=says): learn.fit(1)
    assert learn.loss_func is loss_func
    in_the_loss = 'weight has' in says # the batch is dead, the next one overwrites what it leaves
    assert in_the_loss or type(learn.yb[0]) is Tensor and (torch.equal(learn.yb[0], y) or y.is_floating_point())
    assert torch.equal(weights(learn), before)

def test_a_prediction_that_is_not_one_tensor_is_refused():
    class Two(Module):
        def __init__(self): self.l = nn.Linear(64, 10)
        def forward(self, x): return self.l(x),x
    loss = SpyLoss()
    learn = digits_learner(LabelSmooth(), loss)
    learn.model = Two()
    with pytest.raises(TypeError, match='a tuple.*n='): learn.fit(1)
    assert learn.loss_func is loss

# Nothing that the user did may leave a Learner that cannot go on

@pytest.mark.parametrize('where', ['Learner', 'fit'])
@pytest.mark.parametrize('exc', [KeyboardInterrupt, ZeroDivisionError('oops')])
@pytest.mark.parametrize('again', ['fit', 'validate', 'get_preds', 'lr_find'])
def test_a_learner_works_after_an_error_in_after_pred(where, exc, again):
    "fastai calls no event then"
    learn,bad = digits_learner(LabelSmooth() if where == 'Learner' else None),raiser('after_pred', exc, order=1000)
    loss_func = learn.loss_func
    cbs = [bad] if where == 'Learner' else [LabelSmooth(), bad]
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)): learn.fit(1, cbs=cbs)
    if where == 'fit': assert type(learn.loss_func) is SoftCrossEntropyLossFlat
    getattr(learn, again)(**dict(fit=dict(n_epoch=1), lr_find=dict(show_plot=False, num_it=5)).get(again, {}))
    probs,_ = learn.get_preds()
    assert_close(probs.sum(1), torch.ones(len(probs)))
    assert where == 'fit' or learn.loss_func is loss_func

def test_removed_between_smoothing_and_the_loss_it_leaves_hard_targets():
    class TakeOff(Callback):
        order = 1000
        def after_pred(self):
            if hasattr(self.learn, 'label_smooth'): self.learn.remove_cb(self.learn.label_smooth)
    learn = digits_learner(LabelSmooth())
    learn.fit(1, cbs=TakeOff())
    assert not any(isinstance(o, SoftTarget) for o in learn.yb)
    learn.fit(1)

@pytest.mark.parametrize('mode,error,says', [
    param(lambda targ, batch: None, TypeError, 'mode gave None.*soft target', id='None'),
    param(lambda targ, batch: targ, ValueError, r'shape \(64,\).*\(64, 10\)', id='the label'),
    param(lambda targ, batch: F.one_hot(targ, 10)*2., ValueError, 'sums to 2 over the classes', id='sum of 2'),
    param(lambda targ, batch: F.one_hot(targ, 11)*1., ValueError, r'shape \(64, 11\)', id='a class too many')])
def test_a_mode_that_makes_no_soft_target_is_refused(mode, error, says):
    learn = digits_learner(LabelSmooth(mode=mode))
    before = weights(learn).clone()
    with pytest.raises(error, match=says): learn.fit(1)
    assert torch.equal(weights(learn), before) and type(learn.yb[0]) is Tensor

def test_a_schedule_is_checked_on_the_first_batch():
    "As soon as n is known, not in the middle of training"
    dls = items_dls([(x, y%2) for x,y in digits()], bs=64)
    learn = digits_learner(LabelSmooth(SchedLin(.1, .7)), n_out=2, dls=dls)
    before = weights(learn).clone()
    with pytest.raises(ValueError, match='gives at 67% of training.*n=2'): learn.fit(3)
    assert torch.equal(weights(learn), before)

def test_numpy_numbers_are_accepted():
    learn = digits_learner(LabelSmooth(np.float32(.1), n=np.int64(10), targ_idx=np.int64(0)))
    learn.fit(1)

def test_the_default_eps_is_a_tenth():
    assert LabelSmooth().eps == LabelSmooth(mode='paper').eps == .1

class CEDice(SoftCrossEntropyLossFlat):
    "As the page on losses has it"
    def __call__(self, pred, targ):
        p,t = pred.softmax(self.axis),targ
        if not targ.is_floating_point(): t = F.one_hot(targ, pred.shape[self.axis]).movedim(-1, self.axis)
        dims = [d for d in range(pred.ndim) if d not in (0, self.axis)]
        dice = 1-(2*(p*t).sum(dims)+1)/((p+t).sum(dims)+1)
        dice = dice.mean(1) if self.reduction == 'none' else getattr(dice, self.reduction)()
        ce = super().__call__(pred, targ)
        return (ce.flatten(1).mean(1) if self.reduction == 'none' else ce) + dice

@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_mixup_weighs_each_item_of_a_custom_loss(reduction):
    "Pixels to predict, and one loss for each image: its weight must not be spread over them"
    x,y = torch.rand(16, 3, 6, 5),torch.randint(0, 3, (16, 6, 5))
    loss,mix,seen = CEDice(axis=1, reduction=reduction),MixUp(),[]
    class Look(Callback):
        run_valid,order = False,LabelSmooth.order+1
        def after_loss(self):
            seen.append((self.learn.pred.detach(), self.y, mix.yb1[0], mix.lam, self.learn.loss.item()))
    learn = items_learner(list(zip(x, y)), nn.Conv2d(3, 3, 1), loss, [LabelSmooth(.1), mix, Look()], bs=8)
    learn.fit(2)
    for pred,y,y1,lam,got in seen:
        assert lam.shape == (8,)
        each = CEDice(axis=1, reduction='none')
        a,b = (each(pred, smooth_labels(o, 3, .1, axis=1).dense()) for o in (y1, y))
        assert got == pytest.approx(getattr(torch.lerp(a, b, lam), reduction)().item(), rel=1e-5)
    assert len(seen) == 4

class OwnMix(Callback):
    "A mixer of another library: the attributes of fastai's, and nothing of its class"
    run_valid = False
    def before_train(self): self.old_lf,self.learn.loss_func = self.learn.loss_func,self.lf
    def after_train(self): self.learn.loss_func = self.old_lf
    def before_batch(self):
        self.lam = torch.full((len(self.y),), .7)
        self.yb1 = tuple(o.flip(0) for o in self.yb)
        self.learn.xb = tuple(torch.lerp(o.flip(0), o, .7) for o in self.xb)
    def lf(self, pred, *yb):
        with NoneReduce(self.old_lf) as lf: return torch.lerp(lf(pred, *self.yb1), lf(pred, *yb), self.lam).mean()

class OtherMix(OwnMix):
    "One that keeps the partners elsewhere"
    def before_batch(self): self.others = tuple(o.flip(0) for o in self.yb)

def test_a_mixer_of_another_library_is_served():
    seen = []
    class Look(Callback):
        run_valid,order = False,LabelSmooth.order+1
        def after_loss(self): seen.append((self.learn.pred.detach(), self.y, self.learn.loss.item()))
    learn = digits_learner([LabelSmooth(.1), OwnMix(), Look()])
    learn.fit(1)
    for pred,y,got in seen:
        q = .7*smooth_labels(y, 10, .1).dense() + .3*smooth_labels(y.flip(0), 10, .1).dense()
        assert got == pytest.approx(F.cross_entropy(pred, q).item(), rel=1e-5)
    assert not isinstance(learn.own_mix.yb1[0], SoftTarget)
    other = digits_learner([LabelSmooth(.1), OtherMix()])
    with pytest.raises(TypeError, match='OtherMix.*`yb1`'): other.fit(1)

def test_two_mixers_are_refused():
    class SecondMix(OwnMix): pass
    learn = digits_learner([LabelSmooth(), OwnMix(), SecondMix()])
    with pytest.raises(ValueError, match='SecondMix and OwnMix both mix this batch'): learn.fit(1)

@pytest.mark.parametrize('mode', ['exact', 'forward'])
def test_a_learner_is_freed_when_nobody_holds_it(mode):
    learn = digits_learner(LabelSmooth(.1, mode))
    with learn.no_logging(): learn.fit(1)
    model = weakref.ref(learn.model)
    del learn
    gc.collect()
    assert model() is None

@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='that no step waits for a GPU')
@pytest.mark.parametrize('eps,mode', [
    (.1, 'exact'), (.1, 'forward'), (.1, Priors(range(1, 11))), (.1, Rows(ordinal_rows(10))),
    (None, Forward(.9*torch.eye(10)+.01)), (.1, Bootstrap()), (.1, MaxSup())], ids=str)
def test_no_step_waits_for_the_device(eps, mode):
    "From the second batch on, between the prediction and the loss"
    class Watch(Callback):
        order,run_valid = LabelSmooth.order-1,False
        def after_pred(self):
            if self.iter: torch.cuda.set_sync_debug_mode('error')
    class Release(Callback):
        order = -100
        def after_loss(self): torch.cuda.set_sync_debug_mode('default')
    items = [(x.cuda(), y.cuda()) for x,y in digits()]
    dls = DataLoaders.from_dsets(items, items, bs=64, num_workers=0, device='cuda')
    learn = digits_learner(LabelSmooth(eps, mode), dls=dls)
    learn.model.cuda()
    try: learn.fit(1, cbs=[Watch(), Release()])
    finally: torch.cuda.set_sync_debug_mode('default')

@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='that Spatial does not wait for a GPU')
def test_neighbours_do_not_wait_for_the_device():
    y,batch = torch.randint(0, 3, (2, 8, 8)).cuda(),Batch(Task(3, 1, -100, False))
    soft = Spatial()(y, batch)
    assert_close(soft.cpu(), Spatial()(y.cpu(), batch), rtol=0, atol=2e-3) # its convolution may be in TF32
    torch.cuda.set_sync_debug_mode('error')
    try: Spatial()(y, batch)
    finally: torch.cuda.set_sync_debug_mode('default')

def test_a_mode_given_as_eps_gets_a_hint():
    with pytest.raises(TypeError, match="was mode='forward' meant"): LabelSmooth('forward')

def test_mse_gets_a_hint_to_categoryblock():
    with pytest.raises(TypeError, match='y_block=CategoryBlock'): soft_loss(MSELossFlat())

# What a batch costs, and what a second target asks for

@pytest.mark.parametrize('mode,most', [('exact', 40), ('forward', 45)])
def test_a_batch_is_few_calls(mode, most):
    "Functions of the library that run in one training batch of 64x10"
    learn,calls = digits_learner(LabelSmooth(.1, mode)),[]
    folder = str(Path(fastai_labelsmooth.__file__).parent)
    def count(frame, event, arg):
        if event == 'call' and frame.f_code.co_filename.startswith(folder): calls.append(frame.f_code.co_qualname)
    class Profile(Callback):
        order,run_valid = -100,False
        def before_batch(self):
            if self.iter == 3: sys.setprofile(count)
        def before_backward(self): self.kept = sys.getprofile()
    class Stop(Callback):
        order,run_valid = 1000,False
        def after_batch(self): sys.setprofile(None)
    try: learn.fit(1, cbs=[Profile(), Stop()])
    finally: sys.setprofile(None)
    print(f'{mode}: {len(calls)} calls of {len(set(calls))} functions: {calls}')
    assert 15 < len(calls) <= most

class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body,self.a,self.b = nn.Linear(64, 32),nn.Linear(32, 10),nn.Linear(32, 2)
    def forward(self, x):
        x = self.body(x).relu()
        return self.a(x),self.b(x)

class BothHeads:
    soft_targets = True
    def __init__(self): self.seen = []
    def __call__(self, pred, a, b):
        self.seen.append((a, b))
        return soft_cross_entropy(pred[0], a) + soft_cross_entropy(pred[1], b)

def test_two_targets_have_a_labelsmooth_each():
    items = [(x, y, y % 2) for x,y in digits()]
    dls = items_dls(items, items[:64], bs=64)
    dls.n_inp = 1
    loss = BothHeads()
    cbs = [LabelSmooth(.1, n=10), LabelSmooth(.2, 'paper', targ_idx=1, n=2)]
    learn = quiet(Learner(dls, TwoHeads(), loss, cbs=cbs))
    assert learn.label_smooth is cbs[0] and learn.label_smooth_1 is cbs[1]
    seen = []
    class Look(Callback):
        def after_batch(self): seen.append([type(o) for o in self.yb])
    learn.fit(1, cbs=Look())
    a,b = loss.seen[0]
    assert (a.on, b.on) == (on_off(.1, 10)[0], on_off(.2, 2, 'paper')[0])
    assert all(o == [Tensor, Tensor] for o in seen) and type(loss.seen[-1][0]) is Tensor
    with pytest.raises(ValueError, match='targ_idx=1'): learn.add_cb(LabelSmooth(.1, targ_idx=1))
    learn.remove_cb(cbs[0])
    learn.remove_cb(cbs[1])
    learn.add_cb(LabelSmooth(.1, targ_idx=1, n=2))
    assert learn.label_smooth.targ_idx == 1

def test_outside_of_a_fit_eps_is_that_of_the_end():
    learn = digits_learner(LabelSmooth(SchedCos(.4, 0.), smooth_valid=True))
    learn.fit(2, 1e-2)
    hard = digits_learner(None)
    hard.model.load_state_dict(learn.model.state_dict())
    assert learn.validate()[0] == pytest.approx(hard.validate()[0], rel=1e-5)
    assert_close(learn.get_preds(with_loss=True)[2], hard.get_preds(with_loss=True)[2], rtol=1e-4, atol=1e-5)

@pytest.mark.parametrize('look', [Learner.validate, Learner.get_preds])
def test_looking_in_mid_epoch_leaves_the_mixer(look):
    "The loss is MixUp's again for the rest of the epoch"
    mixed = []
    class Peek(Callback):
        order,run_valid = 1000,False
        def after_batch(self):
            if self.iter == 2: look(self.learn)
    class Look(Callback):
        run_valid = False
        def before_batch(self): mixed.append(getattr(self.learn.loss_func, '__self__', None))
    learn = digits_learner([LabelSmooth(), MixUp()])
    learn.fit(1, cbs=[Peek(), Look()])
    assert set(mixed) == {learn.mix_up} and type(learn.loss_func) is SoftCrossEntropyLossFlat

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat(), nn.CrossEntropyLoss(), F.cross_entropy])
def test_get_preds_has_item_losses_before_the_first_fit(loss):
    "`get_preds` asks the loss that was there for its reduction, before the callback has paired it"
    learn = digits_learner(None, loss)
    learn.add_cb(LabelSmooth())
    assert learn.get_preds(with_loss=True)[2].shape == (200,)
    learn.loss_func = nn.CrossEntropyLoss()
    assert learn.get_preds(with_loss=True)[2].shape == (200,) and learn.loss_func.reduction == 'mean'

def test_added_in_mid_fit_it_pairs_the_loss():
    "At the start of an epoch, when the loss is not paired yet"
    class Later(Callback):
        def before_epoch(self):
            if self.epoch == 1: self.learn.add_cb(LabelSmooth(.1))
    learn = digits_learner(Later())
    learn.fit(3)
    assert type(learn.loss_func) is SoftCrossEntropyLossFlat and len(learn.recorder.values) == 3

def test_a_mode_may_be_a_dataclass():
    "It has no hash"
    from dataclasses import dataclass
    @dataclass
    class Mine(Smoother):
        k: float = 1.
        def __call__(self, targ, batch): return smooth_labels(targ, batch.task.n, batch.eps)
    digits_learner(LabelSmooth(.1, Mine())).fit(1)

def test_logits_that_are_masked_train():
    "A class that a model rules out by -inf"
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.l = nn.Linear(64, 11)
        def forward(self, x): return torch.cat([self.l(x)[:, :10], torch.full((len(x), 1), -math.inf)], 1)
    modes = Bootstrap(), ConfidencePenalty(), Priors([1.]*10+[0.]), Teacher(Masked())
    for mode in modes:
        learn = digits_learner(LabelSmooth(.1, mode))
        learn.model = Masked()
        learn.fit(1)
        assert weights(learn).isfinite().all() and np.isfinite(learn.recorder.values[0][0]), mode

@pytest.mark.parametrize('event', ['after_pred', 'after_loss'])
def test_looking_after_an_interruption_sees_nothing_of_the_dead_batch(event):
    "`validate` and `get_preds` do not smooth, so no batch of theirs replaces anything"
    learn = digits_learner(LabelSmooth(.2))
    order = 1000 if event == 'after_pred' else 0 # between smoothing and putting back
    with pytest.raises(KeyboardInterrupt): learn.fit(1, 0., cbs=raiser(event, KeyboardInterrupt, order))
    start = digits_learner(LabelSmooth(.2))
    assert list(learn.validate()) == pytest.approx(list(start.validate()))
    for a,b in zip(learn.get_preds(), start.get_preds()): assert_close(a, b)

# A model that ends in what the loss does already

def warned(learn, n_fits=1):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        for _ in range(n_fits): learn.fit(1)
    return [str(o.message) for o in seen if 'the model ends in' in str(o.message)]

def end_learner(end, n=3, sigmoid=False, head=None, mode='exact'):
    "A learner of digits whose model ends in `end`"
    def labels(y): return (y < n if n == 1 else F.one_hot(y%n, n)).float() if sigmoid else y%n
    items = [(x, labels(y)) for x,y in digits_dls().train_ds]
    dls = DataLoaders(*[DataLoader(items, bs=64, num_workers=0) for _ in range(2)])
    model = nn.Sequential(nn.Linear(64, n) if head is None else head, end)
    loss = BCEWithLogitsLossFlat() if sigmoid else CrossEntropyLossFlat()
    return quiet(Learner(dls, model, loss, cbs=LabelSmooth(mode=mode)))

class Last(nn.Module):
    "A function as a model's end"
    def __init__(self, func):
        super().__init__()
        self.func = func
    def forward(self, x): return self.func(x)

@pytest.mark.parametrize('kw,end,named', [
    pytest.param({}, nn.Softmax(1), 'softmax', id='softmax'),
    pytest.param({}, Last(lambda z: z.as_subclass(TensorImage).softmax(1)), 'softmax', id='softmax of a subclass'),
    pytest.param(dict(sigmoid=True), nn.Sigmoid(), 'sigmoid', id='sigmoid'),
    pytest.param(dict(sigmoid=True, n=1), Last(lambda z: z.sigmoid().squeeze(1)), 'sigmoid', id='one logit'),
    pytest.param(dict(sigmoid=True), Last(lambda z: TensorImage(z).sigmoid()*1), None, id='multiplied'),
    pytest.param(dict(sigmoid=True), Last(lambda z: TensorImage(z).sigmoid().view(-1, 3, 1).squeeze(2)), 'sigmoid',
                 id='views'),
    pytest.param(dict(sigmoid=True), nn.Softmax(1), 'softmax', id='softmax for labels'),
    pytest.param({}, nn.Sigmoid(), None, id='sigmoids do not sum to 1'),
    pytest.param({}, nn.LogSoftmax(1), None, id='log_softmax changes nothing'),
    pytest.param({}, nn.Identity(), None, id='logits'),
    pytest.param(dict(sigmoid=True), nn.Identity(), None, id='logits of labels'),
    pytest.param(dict(sigmoid=True), Last(lambda z: z.relu().clamp(max=.9)), None, id='in [0, 1] by chance'),
    pytest.param(dict(sigmoid=True, n=1), Last(lambda z: z*1e-3+.5), None, id='near the bias'),
    pytest.param(dict(sigmoid=True, head=nn.Sequential(nn.Linear(64, 8), nn.Sigmoid())), nn.Linear(8, 3), None,
                 id='hidden')])
def test_a_model_that_ends_in_an_activation_is_named_once(kw, end, named):
    said = warned(end_learner(end, **kw), n_fits=2)
    assert len(said) == (named is not None)
    if named: assert f'ends in a {named}' in said[0] and f'expected one without its last {named}' in said[0]

def test_a_segmentation_model_that_ends_in_a_softmax():
    items = [(torch.randn(2, 4, 4), torch.randint(0, 3, (4, 4))) for _ in range(8)]
    dls = DataLoaders(*[DataLoader(items, bs=4, num_workers=0) for _ in range(2)])
    def learner(end):
        model = nn.Sequential(nn.Conv2d(2, 3, 1), end)
        return quiet(Learner(dls, model, CrossEntropyLossFlat(axis=1), cbs=LabelSmooth()))
    assert warned(learner(nn.Softmax(1))) and not warned(learner(nn.Softmax(2)))

def test_nothing_is_said_of_predictions_alone():
    learn = end_learner(nn.Softmax(1), mode='forward')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn.validate()
        learn.get_preds()
    assert warned(learn)
