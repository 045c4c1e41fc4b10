"LabelSmooth with fastai's other callbacks: mixing, precision, several processes, trackers, schedules"
import sys
import matplotlib.pyplot as plt, pytest, torch, torch.nn.functional as F
from pytest import param
from unittest.mock import MagicMock
from torch.testing import assert_close
from fastai.vision.all import *
from fastai.callback.channelslast import ChannelsLast
from fastai_labelsmooth.all import *
from helpers import digits, digits_dls, digits_learner, items_learner, weights
import fastai.callback.fp16

def pictures(n=64):
    "Digits as pictures of one channel"
    return [(x.view(1, 8, 8), y) for x,y in digits(n)]

def convnet(n_out=10):
    "A small network of pictures, the same each time"
    set_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32, n_out))

# MixUp and CutMix: the loss is the cross-entropy against the lam-mixed soft target

class SpyMix(Callback):
    "Keeps what a batch was mixed from, once the targets are hard again"
    run_valid,order = False,LabelSmooth.order+1
    def __init__(self, mix): self.mix,self.seen = mix,[]
    def before_batch(self): self.hard = self.y.clone() # for a sigmoid loss, mixed already
    def after_loss(self):
        yb1 = self.mix.yb1[0]
        assert type(self.y) is Tensor and self.y.equal(self.hard) and not isinstance(yb1, SoftTarget)
        self.seen.append((self.pred.detach().double(), self.y, yb1, self.mix.lam.double(), self.loss.item()))

def onehot(y, n, on, off): return F.one_hot(y, n).double().movedim(-1, 1)*(on-off) + off

mixers = pytest.mark.parametrize('mixer', [MixUp, CutMix])

@mixers
@pytest.mark.parametrize('mode', ['exact', 'paper'])
@pytest.mark.parametrize('loss', [
    param(CrossEntropyLossFlat(), id='fastai'),
    param(nn.CrossEntropyLoss(), id='torch'),
    param(CrossEntropyLossFlat(reduction='sum'), id='sum')])
def test_softmax_loss_is_that_of_the_mixed_targets(mixer, mode, loss):
    mix = mixer()
    spy,reduction = SpyMix(mix),loss.reduction
    learn = items_learner(pictures(), convnet(), loss, [LabelSmooth(.1, mode), mix, spy])
    learn.fit(2, 1e-3)
    for pred,y,y1,lam,got in spy.seen:
        q,q1 = (onehot(o, 10, *on_off(.1, 10, mode)) for o in (y, y1))
        lam = lam.view(-1, 1)
        each = -((lam*q + (1-lam)*q1)*pred.log_softmax(1)).sum(1)
        assert got == pytest.approx(getattr(each, reduction)().item(), rel=1e-5)
    assert len(spy.seen) == 8 and any(not y.equal(y1) for _,y,y1,_,_ in spy.seen)
    assert type(learn.loss_func) is SoftCrossEntropyLossFlat and learn.loss_func.reduction == reduction

@mixers
@pytest.mark.parametrize('eps,one,zero', [(.1, .9, .1), ((.05, .001), .95, .001)])
@pytest.mark.parametrize('loss', [BCEWithLogitsLossFlat(), nn.BCEWithLogitsLoss()], ids=['fastai', 'torch'])
def test_sigmoid_loss_is_that_of_the_mixed_targets(mixer, eps, one, zero, loss):
    mix = mixer()
    spy = SpyMix(mix)
    items = [(x, torch.stack([y%2 == 0, y > 4, y == 0]).float()) for x,y in pictures()]
    learn = items_learner(items, convnet(3), loss, [LabelSmooth(eps), mix, spy])
    learn.fit(2, 1e-3)
    targets = torch.stack([y for _,y in items]).double()
    for i,(pred,mixed,y1,lam,got) in enumerate(spy.seen):
        lam,hard = lam.view(-1, 1),targets[i%4*16:i%4*16+16]
        assert_close(mixed.double(), lam*hard + (1-lam)*y1, rtol=1e-5, atol=1e-6)
        q = lam*torch.where(hard == 1, one, zero) + (1-lam)*torch.where(y1 == 1, one, zero)
        want = -(q*pred.sigmoid().log() + (1-q)*(-pred).sigmoid().log()).mean()
        assert got == pytest.approx(want.item(), rel=1e-5)
    assert len(spy.seen) == 8

@pytest.mark.parametrize('mixer,conv,size', [ # fastai's CutMix takes pictures only
    (MixUp, nn.Conv2d, (6, 5)),
    (CutMix, nn.Conv2d, (6, 5)),
    (MixUp, nn.Conv3d, (3, 6, 5))])
def test_masks_can_be_mixed(mixer, conv, size):
    "Without LabelSmooth, MixUp of masks is an error in fastai"
    mix = mixer()
    spy,y = SpyMix(mix),torch.randint(0, 3, (16, *size))
    items = list(zip(F.one_hot(y).movedim(-1, 1).float(), y))
    learn = items_learner(items, conv(3, 3, 1), CrossEntropyLossFlat(axis=1), [LabelSmooth(.1), mix, spy], bs=8)
    learn.fit(3)
    for pred,y,y1,lam,got in spy.seen:
        q,q1 = (onehot(o, 3, .9, .05) for o in (y, y1))
        lam = lam.view(-1, *[1]*(pred.ndim-1))
        assert got == pytest.approx(-((lam*q + (1-lam)*q1)*pred.log_softmax(1)).sum(1).mean().item(), rel=1e-5)

def test_mixed_sigmoid_of_integers_is_fastais_own_error():
    items = [(x, torch.stack([y%2, y//5])) for x,y in pictures()]
    for cbs in ([MixUp()], [MixUp(), LabelSmooth()]):
        learn = items_learner(items, convnet(2), BCEWithLogitsLossFlat(), cbs)
        with pytest.raises(RuntimeError, match='dtype'): learn.fit(1)

# Precision and memory format

@pytest.mark.parametrize('to,dtype', [('to_bf16', torch.bfloat16), ('to_fp16', torch.float16)])
def test_mixed_precision_trains_alike(monkeypatch, to, dtype):
    "fastai asks for autocast on a GPU: here it gets the same on the CPU, with the gradient scaler"
    monkeypatch.setattr(fastai.callback.fp16, 'autocast', lambda device, **kw: torch.autocast('cpu', **kw))
    monkeypatch.setattr(fastai.callback.fp16, 'GradScaler', lambda device, **kw: torch.amp.GradScaler('cpu', **kw))
    res,dtypes = [],[]
    class Look(Callback):
        run_valid,order = False,LabelSmooth.order+1
        def after_loss(self):
            assert self.learn.pred.dtype == torch.float32
            want = F.cross_entropy(self.learn.pred.double(), self.y, label_smoothing=.1).item()
            assert self.loss.item() == pytest.approx(want, rel=1e-5)
    for mixed in (False, True):
        cbs = [LabelSmooth(.1, 'paper'), Look()]
        learn = items_learner(pictures(), convnet(), CrossEntropyLossFlat(), cbs, opt_func=SGD)
        hook = learn.model[-1].register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
        if mixed: getattr(learn, to)()
        before = weights(learn).clone()
        learn.fit(3, .1)
        hook.remove()
        res.append(weights(learn))
    assert dtypes == [torch.float32]*24 + [dtype]*24 # 4 batches of training and 4 of validation in each epoch
    assert_close(*res, rtol=0, atol=2e-2)
    assert (res[0]-before).abs().max() > .05

@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='autocast in fp16 and bf16 of a GPU')
@pytest.mark.parametrize('to', ['to_bf16', 'to_fp16'])
def test_mixed_precision_trains_on_a_gpu(to):
    dls = DataLoaders.from_dsets(pictures(512), pictures(64), bs=64, num_workers=0, device='cuda')
    learn = Learner(dls, convnet(), CrossEntropyLossFlat(), metrics=accuracy, cbs=LabelSmooth())
    learn = getattr(learn, to)()
    with learn.no_bar(), learn.no_logging(): learn.fit(8, 1e-2)
    assert learn.validate()[1] > .8
    probs,targs,losses = learn.get_preds(with_loss=True)
    assert_close(losses, -probs[range(64), targs].log(), rtol=2e-2, atol=2e-2)

def pixelnet():
    set_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))

@pytest.mark.parametrize('model,axis', [(convnet, -1), (pixelnet, 1)], ids=['classes', 'pixels'])
def test_channels_last_trains_alike(model, axis):
    items = pictures() if axis == -1 else [(x, (x[0]*2.9).long()) for x,_ in pictures()]
    a,b = (items_learner(items, model(), CrossEntropyLossFlat(axis=axis), [LabelSmooth(), *cbs])
           for cbs in ([], [ChannelsLast()]))
    def is_channels_last(learn):
        second = [m for m in learn.model if isinstance(m, nn.Conv2d)][1]
        return second.weight.is_contiguous(memory_format=torch.channels_last)
    for learn in (a, b): learn.fit(2)
    assert not is_channels_last(a) and is_channels_last(b)
    assert_close(weights(a), weights(b), rtol=1e-3, atol=1e-5)

# Batches in parts

def test_accumulated_sigmoid_batches_are_one_large_batch():
    "Four batches of 16 are one of 64"
    res,items = [],[(x, torch.stack([y%2 == 0, y > 4]).float()) for x,y in digits(64)]
    for bs,cbs in ((64, []), (16, [GradientAccumulation(64)])):
        set_seed(0)
        cbs = [LabelSmooth((.05, .001)), *cbs]
        learn = items_learner(items, nn.Linear(64, 2), BCEWithLogitsLossFlat(), cbs, bs, opt_func=SGD)
        learn.fit(3, .1)
        res.append(weights(learn))
    assert_close(*res, rtol=1e-5, atol=1e-6)

# Several processes

@pytest.fixture(scope='module')
def fit(ranks):
    "The module of the script that the two processes ran"
    import distributed_fit
    return distributed_fit

def single(fit):
    "One process on the batches that two had together: rank r takes every half's next `bs` items"
    half = fit.n_train//2
    order = [r*half+i+j for i in range(0, half, fit.bs) for r in range(2) for j in range(fit.bs)]
    learn = fit.learner(fit.dataloaders(2*fit.bs, order))
    learn.fit(fit.epochs, fit.lr)
    return learn

@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(ranks, fit):
    a,b = ranks
    for k in a['weights']: assert torch.equal(a['weights'][k], b['weights'][k])
    learn = single(fit)
    for k,v in learn.model.state_dict().items(): assert_close(a['weights'][k], v, rtol=1e-5, atol=1e-6)
    start = fit.learner().model.state_dict()
    assert all((a['weights'][k]-v).abs().max() > 1e-3 for k,v in start.items())

@pytest.mark.slow
def test_two_processes_gather_probabilities(ranks, fit):
    a,b = ranks
    learn = fit.learner()
    learn.model.load_state_dict(a['weights'])
    probs,targs = learn.get_preds()
    # fastai gathers step by step, and each rank has its own half
    order = [*range(8), *range(16, 24), *range(8, 16), *range(24, 31)]
    for rank in (a, b):
        assert rank['loss'] == 'SoftCrossEntropyLossFlat' and rank['kinds'] == {'Tensor'}
        assert_close(rank['probs'], probs[order])
        assert rank['targs'].equal(targs[order]) and len(targs) == fit.n_valid

def test_to_parallel_trains_alike():
    pytest.importorskip('accelerate', reason='fastai.distributed does not import without accelerate')
    from fastai.distributed import ParallelTrainer
    wrapped = []
    class Look(Callback):
        def after_batch(self): wrapped.append(type(self.learn.model))
    a,b = (digits_learner(LabelSmooth()) for _ in range(2))
    b.to_parallel()
    for learn in (a, b):
        set_seed(1)
        learn.fit(1, cbs=Look())
    assert set(wrapped) == {nn.Sequential, nn.DataParallel}
    assert_close(weights(a), weights(b))
    assert_close(b.get_preds()[0].sum(1), torch.ones(200))

# Trackers

class Tracker(Callback):
    "Reads what the callbacks for W&B and TensorBoard read"
    order = Recorder.order+1
    def before_fit(self): self.log = []
    def after_batch(self):
        if self.training: self.log.append((self.train_iter, self.loss.item(), self.y, self.learn.pred.detach()))
    def after_epoch(self):
        self.learn.one_batch(0, self.dls.valid.one_batch()) # TensorBoardCallback does so for its pictures
        probs = getcallable(self.learn.loss_func, 'activation')(self.learn.pred)
        assert_close(probs.sum(1), torch.ones(len(probs)))
        assert getcallable(self.learn.loss_func, 'decodes')(probs).equal(self.learn.pred.argmax(1))

def test_a_tracker_sees_hard_targets_and_the_smoothed_loss():
    tracker = Tracker()
    digits_learner(LabelSmooth(.1, 'paper')).fit(2, cbs=tracker)
    assert [i for i,*_ in tracker.log] == list(range(1, 17))
    for _,loss,y,pred in tracker.log:
        assert type(y) is Tensor and y.dtype == torch.int64
        assert loss == pytest.approx(F.cross_entropy(pred.double(), y, label_smoothing=.1).item(), rel=1e-5)

@pytest.mark.parametrize('eps', [.1, SchedCos(.1, 0.)], ids=['number', 'schedule'])
def test_wandb_gathers_the_configuration(monkeypatch, eps):
    "With a stand-in for W&B"
    monkeypatch.setitem(sys.modules, 'wandb', MagicMock())
    import fastai.callback.wandb
    args = digits_learner(LabelSmooth(eps, 'paper')).gather_args()
    assert args['LabelSmooth'] == dict(eps=eps, mode='paper', smooth_valid=False, targ_idx=0, n=None)

def test_tensorboard_logs_the_losses(monkeypatch):
    "fastai's own callback, with a stand-in for TensorBoard"
    for name in ('tensorboard', 'torch.utils.tensorboard'): monkeypatch.setitem(sys.modules, name, MagicMock())
    from fastai.callback.tensorboard import TensorBoardCallback
    tb = TensorBoardCallback(log_preds=False)
    learn = digits_learner(LabelSmooth())
    learn.fit(1, cbs=tb)
    scalars = {}
    for c in tb.writer.add_scalar.call_args_list: scalars.setdefault(c.args[0], []).append(c.args[1])
    assert scalars['valid_loss'] == [learn.recorder.values[0][1]]
    assert len(scalars['train_loss']) == sum(map(len, learn.dls)) and all(l > 0 for l in scalars['train_loss'])

def test_csv_logger_logs_the_recorded_values(tmp_path):
    learn = digits_learner(LabelSmooth(), path=tmp_path)
    learn.fit(2, cbs=CSVLogger())
    logged = pd.read_csv(tmp_path/'history.csv')
    assert list(logged) == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    assert np.allclose(logged[['train_loss', 'valid_loss', 'accuracy']], np.array(learn.recorder.values))

# Added and removed

def fitted(how):
    "A learner after one fit with LabelSmooth, given in one of the ways there are"
    learn = digits_learner(LabelSmooth() if how == 'Learner' else LabelSmooth if how == 'class' else None)
    if how == 'add_cb': learn.add_cb(LabelSmooth())
    if how == 'add_cbs': learn.add_cbs([LabelSmooth()])
    set_seed(1)
    learn.fit(1, cbs=LabelSmooth() if how == 'fit' else None)
    return learn

ways = ['Learner', 'class', 'add_cb', 'add_cbs', 'fit']

@pytest.mark.parametrize('how', ways[1:])
def test_every_way_trains_the_same(how): assert_close(weights(fitted(how)), weights(fitted('Learner')))

@pytest.mark.parametrize('how', ways)
def test_removed_it_trains_on_hard_targets(how):
    learn,kinds = fitted(how),[]
    if how != 'fit': learn.remove_cb(LabelSmooth)
    assert not learn._grab_cbs(LabelSmooth) and not hasattr(learn, 'label_smooth')
    assert type(learn.loss_func) is SoftCrossEntropyLossFlat
    plain = digits_learner()
    plain.model.load_state_dict(learn.model.state_dict())
    class Look(Callback):
        order = LabelSmooth.order+1
        def after_pred(self): kinds.append(type(self.y))
    for o in (learn, plain):
        set_seed(2)
        o.dls = digits_dls()
        o.fit(1, reset_opt=True, cbs=Look())
    assert set(kinds) == {Tensor}
    assert_close(weights(learn), weights(plain), rtol=1e-5, atol=1e-6)
    assert_close(learn.get_preds(with_loss=True)[2], plain.get_preds(with_loss=True)[2], rtol=1e-4, atol=1e-5)

def test_added_twice_it_is_refused():
    learn = digits_learner(LabelSmooth())
    first = learn.label_smooth
    before = weights(learn).clone()
    with pytest.raises(ValueError, match='already'): learn.fit(1, cbs=LabelSmooth(.2))
    with pytest.raises(ValueError, match='already'): learn.add_cb(LabelSmooth(.2))
    with pytest.raises(ValueError, match='twice'): learn.fit(1, cbs=first)
    assert torch.equal(weights(learn), before) and learn.label_smooth is first
    learn.fit(1)
    assert first in learn.cbs and not torch.equal(weights(learn), before)

def test_in_two_learners_it_is_refused():
    "The first would train on hard targets"
    cb = LabelSmooth()
    learn = digits_learner(cb)
    with pytest.raises(ValueError, match='another Learner.*remove_cb'): digits_learner(cb)
    assert cb.learn is learn
    learn.fit(1)
    learn.remove_cb(cb)
    digits_learner(cb).fit(1)

# Schedules

def probe(learn, **kwargs):
    "The `eps` of each training batch as its soft target says it, and where in training that was"
    seen = []
    class Look(Callback):
        order,run_valid = LabelSmooth.order+1,False
        def after_pred(self): seen.append((1-self.y.on, self.pct_train))
    getattr(learn, kwargs.pop('fit', 'fit'))(2, cbs=Look(), **kwargs)
    return zip(*seen)

scheds = dict(
    cos=SchedCos(.1, 0.),
    combined=combine_scheds([.3, .7], [SchedLin(0., .2), SchedCos(.2, .05)]),
    own=lambda pct: .2 if pct < .5 else 0.)

@pytest.mark.parametrize('name', scheds)
@pytest.mark.parametrize('fit', ['fit', 'fit_one_cycle'])
def test_eps_follows_its_schedule(name, fit):
    learn = digits_learner(LabelSmooth(scheds[name]))
    used,pct = probe(learn, fit=fit)
    assert len(used) == 16 and pct == pytest.approx([i/16 for i in range(16)])
    assert used == pytest.approx([scheds[name](i/16) for i in range(16)], abs=1e-6)
    assert learn.recorder.hps['eps'] == pytest.approx(used)
    learn.recorder.plot_sched()
    drawn = {ax.get_ylabel(): list(ax.lines[0].get_ydata()) for ax in plt.gcf().axes if ax.lines}
    plt.close('all')
    assert drawn['eps'] == pytest.approx(used) and len(drawn['lr']) == 16
    assert set(drawn) == ({'lr', 'eps'} if fit == 'fit' else {'lr', 'mom', 'eps'})

def test_a_fit_draws_its_own_eps():
    "Not that of the fit before"
    learn = digits_learner(LabelSmooth(SchedCos(.1, 0.)))
    for n in (3, 2): learn.fit_one_cycle(n)
    assert len(learn.recorder.hps['eps']) == len(learn.recorder.hps['lr']) == 16

@pytest.mark.parametrize('fitted', [False, True])
def test_lr_find_leaves_the_recorded_schedules(fitted):
    "It keeps no schedules of its own, and leaves those of the fit before"
    learn = digits_learner(LabelSmooth(SchedCos(.1, 0.)))
    if fitted: learn.fit_one_cycle(1)
    before = {k: list(v) for k,v in learn.recorder.hps.items()} if fitted else None
    assert learn.lr_find(show_plot=False, num_it=5).valley > 0
    assert not fitted or before == learn.recorder.hps
    learn.fit_one_cycle(1)
    assert len(learn.recorder.hps['eps']) == len(learn.recorder.hps['lr']) == 8

def test_a_constant_is_not_drawn():
    learn = digits_learner(LabelSmooth(.1))
    learn.fit_one_cycle(1)
    assert set(learn.recorder.hps) == {'lr', 'mom'}
