"Labels of which some are unknown, under sigmoid losses: what is unknown counts nowhere"
import itertools, math, pickle, warnings
import pytest, torch, torch.nn.functional as F
from functools import partial
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close
import sklearn.metrics as skm, torchmetrics.functional.classification as tm
from fastai.vision.all import *
from fastai.tabular.all import *
from fastai.callback.mixup import CutMix, MixUp
from fastai_labelsmooth.all import *
from fastai_labelsmooth.targets import binary_labels
from helpers import digits_dls, logits_learner, quiet

nan = math.nan

def reference(z, y, ignore_index, weight, pos_weight, reduction):
    "By definition, in float64: one known label at a time"
    total,each = 0.,[]
    for at in itertools.product(*map(range, z.shape)):
        t = y[at].item()
        if math.isnan(t) or t == ignore_index: each.append(z.new_zeros(()).double())
        else:
            x = z[at].double()
            w,p = (1. if o is None else o.expand(z.shape)[at].double() for o in (weight, pos_weight))
            each.append(-w*(p*t*F.logsigmoid(x) + (1-t)*F.logsigmoid(-x)))
            total += 1
    res = torch.stack(each).view(z.shape)
    if reduction == 'none': return res
    return res.sum() if reduction == 'sum' else res.sum()/max(total, 1)

@st.composite
def cases(draw):
    "Logits and labels of any shape, dtype and share of unknown ones"
    pick = lambda *xs: draw(st.sampled_from(xs))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    shape = pick((5, 3), (4,), (4, 1), (2, 1, 3, 2), (2, 3, 2, 2), (2, 3, 1, 2, 2))
    kind,reduction = pick('float32', 'float64', 'int64', 'int8', 'uint8', 'shares'),pick('mean', 'sum', 'none')
    ignore_index = 255 if kind == 'uint8' else pick(-1, -100, 2)
    y = torch.rand(shape)
    if kind != 'shares': y = (y < .5).to(getattr(torch, kind))
    unknown = torch.rand(shape) < pick(0., .4, 1.)
    stands_for_it = pick(nan, ignore_index) if y.is_floating_point() else ignore_index
    y = y.masked_fill(unknown, stands_for_it)
    z = (torch.randn(shape)*3).to(pick(torch.float32, torch.float64, torch.float16, torch.bfloat16))
    z = z.masked_fill(unknown, pick(0., nan, math.inf, -math.inf))
    n = shape[1] if len(shape) > 1 else 1
    laid = [n if d == 1 else 1 for d in range(len(shape))] if len(shape) > 1 else [1]
    weight,pos_weight = ((torch.rand(n)+.1) if draw(st.booleans()) else None for _ in range(2))
    wide = [None if o is None else o.view(laid) for o in (weight, pos_weight)]
    if draw(st.booleans()): weight,pos_weight = wide # a shape that torch itself would broadcast
    return z,y,unknown,ignore_index,(weight, pos_weight),wide,reduction

tol = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}

@settings(max_examples=400)
@given(cases())
def test_value_and_gradient_against_float64(case):
    z,y,unknown,ignore_index,weights,wide,reduction = case
    a,b = z.clone().requires_grad_(),z.double().requires_grad_()
    loss = SoftBCEWithLogitsLossFlat(ignore_index, *weights, reduction)
    got,want = loss(a, y),reference(b, y, ignore_index, *wide, reduction)
    t = tol[z.dtype]
    assert got.dtype == z.dtype
    assert_close(got.double(), want, rtol=t, atol=t*10)
    got.sum().backward()
    assert a.grad.isfinite().all() and not a.grad[unknown].any()
    if unknown.all(): return
    want.sum().backward()
    assert_close(a.grad.double(), b.grad, rtol=t, atol=t*2)

def data(m=300, n=4, share=.4, fill=nan):
    "Logits, labels of which some are unknown, and which are known"
    z = torch.randn(m, n)*2
    y = torch.bernoulli((z/2).sigmoid())
    known = torch.rand(m, n) >= share
    return z,y.masked_fill(~known, fill),known

shapes = [((8, 5), (8, 5)), ((8,), (8,)), ((8,), (8, 1)), ((2, 1, 4, 4), (2, 4, 4)), ((2, 3, 4, 4), (2, 3, 4, 4))]

@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
@pytest.mark.parametrize('shape,of_targ', shapes)
def test_where_all_are_known_it_is_torchs(shape, of_targ, reduction):
    z,y = torch.randn(shape),torch.randint(0, 2, of_targ)
    pos_weight = torch.rand(1)+.5
    for t in (y, y.float(), smooth_binary(y, (.1, .02))):
        got = SoftBCEWithLogitsLossFlat(pos_weight=pos_weight, reduction=reduction)(z, t)
        want = F.binary_cross_entropy_with_logits(z, t.view(shape).float(), pos_weight=pos_weight, reduction=reduction)
        assert_close(got, want)

def test_it_is_a_loss_of_fastai():
    loss = SoftBCEWithLogitsLossFlat(ignore_index=255, thresh=.3, pos_weight=tensor([2., 3.]))
    z = torch.randn(4, 2)
    assert soft_loss(loss) is loss and task_of(loss, z) == Task(2, 1, 255, True)
    assert task_of(SoftBCEWithLogitsLossFlat(axis=-1), torch.randn(2, 3, 4)) == Task(4, 2, -100, True)
    assert_close(loss.activation(z), z.sigmoid())
    assert loss.decodes(tensor([.31, .29])).tolist() == [True, False]
    y = tensor([[1., nan], [0., 1.], [nan, nan], [255., 0.]])
    for o in (deepcopy(loss), pickle.loads(pickle.dumps(loss))): assert_close(o(z, y), loss(z, y))
    assert 'ignore_index=255' in repr(loss)

def test_masks_and_images_of_fastai():
    z,y = TensorImage(torch.randn(2, 1, 4, 4)),TensorMask(torch.randint(0, 2, (2, 4, 4)))
    y[0] = 255
    got = SoftBCEWithLogitsLossFlat(ignore_index=255)(z, y)
    assert_close(got, F.binary_cross_entropy_with_logits(Tensor(z[1, 0]), Tensor(y[1]).float()))

def test_under_autocast_and_torch_func():
    z,y,known = data(20)
    loss = SoftBCEWithLogitsLossFlat()
    want = F.binary_cross_entropy_with_logits(z[known], y[known])
    with torch.autocast('cpu', torch.bfloat16): assert loss(z.bfloat16(), y).dtype == torch.float32
    assert_close(torch.func.functional_call(nn.Identity(), {}, z), z)
    grad = torch.func.grad(lambda o: loss(o, y))(z)
    assert_close(loss(z, y), want)
    assert_close(grad[known], ((z.sigmoid()-y)/known.sum())[known])
    assert not grad[~known].any()

bad = [
    (lambda: SoftBCEWithLogitsLossFlat(ignore_index=0), ValueError, r'ignore_index=0: expected.*outside \[0, 1\]'),
    (lambda: SoftBCEWithLogitsLossFlat(ignore_index=.5), ValueError, 'ignore_index=0.5'),
    (lambda: SoftBCEWithLogitsLossFlat(ignore_index=None), TypeError, 'ignore_index=None'),
    (lambda: SoftBCEWithLogitsLossFlat(ignore_index='255'), TypeError, "ignore_index='255'"),
    (lambda: SoftBCEWithLogitsLossFlat(reduction='avg'), ValueError, "reduction='avg'.*'mean', 'sum' or 'none'"),
    (lambda: SoftBCEWithLogitsLossFlat()(torch.randn(2, 3), torch.zeros(2, 4)), ValueError,
     r'shape \(2, 4\).*\(2, 3\)'),
    (lambda: SoftBCEWithLogitsLossFlat()(torch.zeros(2, 3).long(), torch.zeros(2, 3)), TypeError, 'inp has dtype'),
    (lambda: SoftBCEWithLogitsLossFlat()(torch.randn(2), tensor([2., nan])), ValueError, 'targ.* 2.*ignore_index=-100'),
    (lambda: SoftBCEWithLogitsLossFlat(ignore_index=-1)(torch.randn(2), tensor([-2., nan])), ValueError,
     '-2.*ignore_index=-1'),
    (lambda: SoftBCEWithLogitsLossFlat(weight=torch.ones(4))(torch.randn(2, 3), torch.zeros(2, 3)),
     ValueError, r'weight has shape \(4,\).*3 labels on axis 1'),
    (lambda: SoftBCEWithLogitsLossFlat(pos_weight=torch.ones(3), axis=2)(torch.randn(2, 3), torch.zeros(2, 3)),
     ValueError, 'axis=2'),
    (lambda: smooth_binary(tensor([1., nan])), ValueError, 'nan.*SoftBCEWithLogitsLossFlat'),
    (lambda: on_known(RocAucMulti()), ValueError, "metric='roc_auc_score'.*single labels"),
    (lambda: on_known(accuracy_multi)(torch.randn(2), tensor([1., 2.])), ValueError, 'targ.* 2')]

@pytest.mark.parametrize('call,error,says', bad, ids=[o[2] for o in bad])
def test_bad_arguments(call, error, says):
    with pytest.raises(error, match=says): call()

def test_the_labels_of_any_dtype_become_nan_where_unknown():
    "156 and -100 are one number in 8 bits"
    assert binary_labels(tensor([0, 1, 255], dtype=torch.uint8), 255).isnan().tolist() == [False, False, True]
    with pytest.raises(ValueError, match='156'): binary_labels(tensor([0, 1, 156], dtype=torch.uint8), -100)
    assert binary_labels(tensor([1., nan, -1.]), -1).isnan().tolist() == [False, True, True]
    assert binary_labels(tensor([True, False]), -1).tolist() == [1., 0.]

# In a Learner

bces = dict(fastai=BCEWithLogitsLossFlat, torch=nn.BCEWithLogitsLoss,
            function=lambda: F.binary_cross_entropy_with_logits)

@pytest.mark.parametrize('loss', bces.values(), ids=bces)
def test_a_loss_that_knows_no_unknown_labels_says_what_to_take(loss):
    z,y,_ = data(20)
    learn = logits_learner(z, y, loss(), cbs=LabelSmooth())
    with pytest.raises(ValueError, match='SoftBCEWithLogitsLossFlat'): learn.fit(1)
    learn.remove_cb(LabelSmooth)
    for ask in (learn.topk, learn.calibrate, lambda: compare({'a': learn})):
        with pytest.raises(ValueError, match='SoftBCEWithLogitsLossFlat'): ask()

def test_later_batches_are_checked_too():
    z,y = torch.randn(40, 3),torch.zeros(40, 3)
    y[-1] = nan
    learn = logits_learner(z, y, BCEWithLogitsLossFlat(), cbs=LabelSmooth(), bs=10)
    with pytest.raises(ValueError, match='SoftBCEWithLogitsLossFlat'): learn.fit(1)

class Masked:
    "A loss of one's own that leaves NaN out"
    soft_targets,sigmoid,reduction = True,True,'mean'
    def __call__(self, pred, targ):
        known = ~targ.isnan()
        return F.binary_cross_entropy_with_logits(pred[known], targ[known])

def test_a_masked_loss_of_ones_own():
    z,y,known = data()
    learn = logits_learner(z, y, Masked(), cbs=LabelSmooth((.1, .02)))
    learn.fit(1)
    assert learn.validate()[0] == pytest.approx(F.binary_cross_entropy_with_logits(z[known], y[known]).item(), abs=.01)
    Masked.ignore_index = -1
    learn = logits_learner(z, y.nan_to_num(-1), Masked(), cbs=LabelSmooth((.1, .02), smooth_valid=True))
    assert math.isfinite(learn.validate()[0]) # the loss gets NaN, whatever stands for it
    del Masked.ignore_index

def test_a_mode_must_leave_it_unknown():
    z,y,_ = data(20)
    def gives(mode): return logits_learner(z, y, SoftBCEWithLogitsLossFlat(), cbs=LabelSmooth(.1, mode))
    with pytest.raises(ValueError, match='where the label is unknown.*expected NaN'):
        gives(lambda targ, batch: targ.nan_to_num(0.)).fit(1)
    with pytest.raises(ValueError, match='gave NaN for a label that is known'):
        gives(lambda targ, batch: torch.full_like(targ, nan)).fit(1)
    gives(lambda targ, batch: .9*hard_target(targ, batch.task)).fit(1)

def test_training_leaves_unknown_labels_alone():
    "The same weights as of a model for which they were known to be right, which is no gradient"
    x,y = map(torch.stack, zip(*list(digits_dls().train_ds)[:128]))
    labels = torch.stack([y%2 == 0, y > 4, y == 0], 1).float()
    known = torch.rand(labels.shape) > .5
    def learner(y, loss):
        set_seed(0)
        dls = DataLoaders(*[DataLoader(list(zip(x, y)), bs=128, num_workers=0) for _ in range(2)])
        return quiet(Learner(dls, nn.Linear(64, 3), loss, opt_func=SGD, cbs=LabelSmooth(.1)))
    learn = learner(labels.masked_fill(~known, nan), SoftBCEWithLogitsLossFlat())
    w,b = (p.detach().double().clone().requires_grad_() for p in learn.model.parameters())
    learn.fit(3, .5)
    for _ in range(3):
        z = x.double()@w.T+b
        F.binary_cross_entropy_with_logits(z[known], (.1+.8*labels.double())[known]).backward()
        with torch.no_grad():
            for p in (w, b):
                p -= .5*p.grad
                p.grad = None
    for got,want in zip(learn.model.parameters(), (w, b)):
        assert_close(got.detach().double(), want.detach(), rtol=0, atol=1e-5)

@pytest.mark.parametrize('mixer', [MixUp, CutMix])
def test_a_mixture_with_an_unknown_label_is_unknown(mixer):
    y = tensor([[1., nan], [0., 1.], [nan, 0.], [1., 1.]])
    seen = []
    class See(Callback):
        order,run_valid = LabelSmooth.order+1,False
        def after_pred(self): seen.append((self.y, self.mixer.yb1[0], self.mixer.lam))
        def before_fit(self): self.mixer = self.learn._grab_cbs(mixer)[0]
    dls = DataLoaders(*[DataLoader(list(zip(torch.randn(4, 3, 8, 8), y)), bs=4, num_workers=0) for _ in range(2)])
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    learn = quiet(Learner(dls, model, SoftBCEWithLogitsLossFlat(), cbs=[LabelSmooth(.1), mixer(), See()]))
    learn.fit(5)
    assert any((o[1].isnan() != y.isnan()).any() for o in seen)
    for soft,partner,lam in seen:
        assert soft.isnan().equal(y.isnan() | partner.isnan())
        lam = lam.view(-1, 1) if lam.ndim else lam
        want = .1+.8*(lam*y + (1-lam)*partner)
        assert_close(soft, want, equal_nan=True)
    assert math.isfinite(learn.recorder.values[-1][0])

@pytest.mark.parametrize('mixer', [MixUp, CutMix])
def test_what_stands_for_unknown_cannot_be_mixed(mixer):
    y = tensor([[1., -1.]]*8)
    dls = DataLoaders(*[DataLoader(list(zip(torch.randn(8, 3, 8, 8), y)), bs=4, num_workers=0) for _ in range(2)])
    loss = SoftBCEWithLogitsLossFlat(ignore_index=-1)
    learn = quiet(Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), loss))
    with pytest.raises(ValueError, match='ignore_index=-1.*expected NaN'): learn.fit(1, cbs=mixer())
    assert learn.loss_func is loss
    learn.fit(1)

@pytest.mark.parametrize('eps', [.1, (.3, 0.), (.2, .1)])
def test_forward_gives_no_gradient_where_the_logit_is_nan_or_infinite(eps):
    z,y = torch.randn(6, 4),torch.randint(0, 2, (6, 4)).float()
    y[0] = nan
    z[0] = tensor([nan, math.inf, -math.inf, 0.])
    z.requires_grad_()
    b = Batch(Task(4, 1, -100, True), eps, z.detach())
    loss = SoftBCEWithLogitsLossFlat()(Forward().observed(z, b), Forward()(y, b))
    loss.backward()
    alone = z.detach()[1:].requires_grad_()
    want = BCEWithLogitsLossFlat()(Forward().observed(alone, b), y[1:])
    want.backward()
    assert_close(loss, want.as_subclass(Tensor))
    assert not z.grad[0].any()
    assert_close(z.grad[1:], alone.grad)

# Metrics and interpretation: as of the known labels alone

def loss_for(fill):
    return SoftBCEWithLogitsLossFlat() if math.isnan(fill) else SoftBCEWithLogitsLossFlat(ignore_index=fill)

def learner(fill=nan, cbs=None, metrics=None, **kw):
    z,y,known = data(fill=fill)
    learn = logits_learner(z, y, loss_for(fill), cbs=cbs, **kw)
    learn.metrics = L(metrics)
    return learn,z,y,known

def of_known(z, y, known):
    "A learner of one logit that has the known labels as its items"
    return logits_learner(z[known][:, None], y[known][:, None], BCEWithLogitsLossFlat())

fills = pytest.mark.parametrize('fill', [nan, -1, 255])

@fills
def test_validation_and_metrics(fill):
    "Of one batch. Of several fastai weighs `valid_loss` by the number of items"
    shown = [on_known(accuracy_multi), on_known(partial(accuracy_multi, thresh=.3)), ECE(), BrierScore()]
    learn,z,y,known = learner(fill, LabelSmooth(.1), shown, bs=300)
    loss,acc,acc_3,ece,brier = learn.validate()
    p,t = z[known].double().sigmoid(),y[known]
    assert loss == pytest.approx(F.binary_cross_entropy(p, t.double()).item(), rel=1e-5)
    assert acc == pytest.approx(skm.accuracy_score(t, p > .5)) and acc_3 == pytest.approx(skm.accuracy_score(t, p > .3))
    assert ece == pytest.approx(tm.binary_calibration_error(p, t.long(), n_bins=15).item(), rel=1e-4)
    assert brier == pytest.approx(skm.brier_score_loss(t, p), rel=1e-5)
    assert learn.metrics[0].name == 'accuracy_multi'

def test_metrics_over_batches_weigh_by_known_labels():
    learn,z,y,known = learner(metrics=[on_known(accuracy_multi)], bs=7)
    y[:7] = nan # a batch without any
    learn.dls.loaders[1] = DataLoader(list(zip(z, y)), bs=7, num_workers=0)
    known = ~y.isnan()
    want = ((z > 0) == y.bool())[known].float().mean().item()
    assert learn.validate()[1] == pytest.approx(want)

def test_metrics_that_gather():
    "Dice of a mask with one logit, over all pixels"
    z,y,known = data(4, 3)
    def dice(pred, targ):
        p,t = pred > 0,targ > 0
        return (2*(p&t).sum()/(p.sum()+t.sum())).item()
    learn = logits_learner(z, y, SoftBCEWithLogitsLossFlat(), bs=2)
    learn.metrics = L(on_known(AccumMetric(dice)))
    assert learn.validate()[1] == pytest.approx(skm.f1_score(y[known], z[known] > 0))
    assert on_known(accuracy_multi)(z, y) == pytest.approx(skm.accuracy_score(y[known], z[known] > 0))

def test_a_metric_can_say_what_stands_for_unknown():
    learn,z,y,known = learner(255, metrics=[ECE(ignore_index=255), on_known(accuracy_multi, ignore_index=255)])
    learn.loss_func = BCEWithLogitsLossFlat()
    _,ece,acc = learn.validate()
    want = tm.binary_calibration_error(z[known].sigmoid(), y[known].long(), n_bins=15).item()
    assert ece == pytest.approx(want, rel=1e-4)
    assert acc == pytest.approx(skm.accuracy_score(y[known], z[known] > 0))

def test_on_known_leaves_the_learner_as_it_was():
    learn,z,y,_ = learner()
    def fails(pred, targ): raise RuntimeError('from within')
    metric = on_known(fails)
    metric.reset()
    learn.pred,learn.yb = z,(y,)
    with pytest.raises(RuntimeError, match='from within'): metric.accumulate(learn)
    assert learn.pred is z and learn.yb[0] is y
    learn.loss_func = CrossEntropyLossFlat()
    with pytest.raises(ValueError, match='expected a sigmoid loss'): metric.accumulate(learn)

@fills
def test_a_calibration_is_that_of_the_known_labels(fill):
    learn,z,y,known = learner(fill, bs=32)
    one = of_known(z, y, known)
    got,want = (CalibrationInterpretation.from_learner(o).summary() for o in (learn, one))
    pooled = [o for o in got.columns if o != 'classwise ECE']
    assert got.loc['all', pooled].to_numpy() == pytest.approx(want.loc['all', pooled].to_numpy(), rel=1e-6)
    for j in range(4):
        k = known[:, j]
        alone = logits_learner(z[k][:, [j]], y[k][:, [j]], BCEWithLogitsLossFlat())
        want_j = CalibrationInterpretation.from_learner(alone).summary().loc['all']
        assert got.loc[j].to_numpy() == pytest.approx(want_j.to_numpy(), rel=1e-6)
    assert got.loc['all', 'classwise ECE'] == pytest.approx(got['ECE'].iloc[:4].mean())
    assert temperature(learn) == pytest.approx(temperature(one), rel=1e-4)
    assert learn.calibrate() == pytest.approx(temperature(one), rel=1e-4)
    assert compare({'a': learn}).loc['ECE', 'a'] < want.loc['all', 'ECE']

def test_a_temperature_through_the_noise():
    learn,z,y,known = learner(cbs=LabelSmooth((.2, .05), 'forward'))
    one = of_known(z, y, known)
    one.add_cb(LabelSmooth((.2, .05), 'forward'))
    assert temperature(learn) == pytest.approx(temperature(one), rel=1e-4)

def test_a_label_that_is_never_known():
    z,y,_ = data()
    y[:, 1] = nan
    got = CalibrationInterpretation.from_learner(logits_learner(z, y, SoftBCEWithLogitsLossFlat())).summary()
    assert got.loc[1].isna().all() and got.drop(1).notna().all(axis=None)

def test_top_losses_are_means_over_known_labels():
    learn,z,y,known = learner()
    each = F.binary_cross_entropy_with_logits(z, y.nan_to_num(0), reduction='none')*known
    want = (each.sum(1)/known.sum(1)).nan_to_num(0)
    assert_close(CalibrationInterpretation.from_learner(learn).losses, want)
    top = learn.topk()
    assert top.loss.to_numpy() == pytest.approx(torch.where(known.any(1), want, nan).numpy(), rel=1e-4, nan_ok=True)

@fills
def test_topk_names_known_labels(fill):
    z,y = torch.randn(4, 3),tensor([[1., nan, 1.], [0., 0., nan], [nan]*3, [1., 1., 1.]])
    learn = logits_learner(z, y.nan_to_num(fill), loss_for(fill))
    learn.dls.vocab = list('abc')
    top = learn.topk(2)
    assert top.target.tolist() == ['a;c', '', None, 'a;b;c'] and top.loss.isna().tolist() == [False, False, True, False]

def test_topk_of_one_logit():
    z,y = torch.randn(3),tensor([1., nan, 0.])
    top = logits_learner(z, y, SoftBCEWithLogitsLossFlat()).topk()
    assert top.target.tolist() == [1, None, 0] and top.loss.isna().tolist() == [False, True, False]

def test_predictions_may_be_nan_only_where_nothing_is_known():
    z,y,known = data()
    z[~known] = nan
    learn = logits_learner(z, y, SoftBCEWithLogitsLossFlat())
    got,want = (CalibrationInterpretation.from_learner(o).summary() for o in (learn, of_known(z, y, known)))
    assert got.loc['all', 'accuracy'] == pytest.approx(want.loc['all', 'accuracy'])
    assert math.isfinite(temperature(learn))
    z[known.nonzero()[0].tolist()] = nan
    learn = logits_learner(z, y, SoftBCEWithLogitsLossFlat())
    with pytest.raises(ValueError, match='predictions are NaN'): learn.topk()

def test_only_unknown_labels():
    z,y = torch.randn(10, 2),torch.full((10, 2), nan)
    learn = logits_learner(z, y, SoftBCEWithLogitsLossFlat(), cbs=LabelSmooth())
    with pytest.raises(ValueError, match='only targets that are ignored'): compare({'a': learn})
    with pytest.raises(ValueError, match='only targets that are ignored'): learn.calibrate()
    learn.fit(1)
    assert learn.recorder.values[-1][0] == 0

def test_pictures_of_what_is_known():
    learn,z,y,known = learner(cbs=LabelSmooth(.1))
    look = CalibrationInterpretation.from_learner(learn)
    shares = []
    for plot in (look.plot_logit_gap, look.plot_confidence):
        ax = plt.subplots()[1]
        plot(ax=ax)
        shares.append(sum(o.get_height() for o in ax.patches))
    assert shares == pytest.approx([100., 200.], rel=1e-4) # all known labels; those that are 1, those that are 0
    look.plot_reliability()
    plt.close('all')

def test_show_batch():
    z,y = torch.randn(4, 2),tensor([[1., nan], [0., 1.], [nan, nan], [1., 1.]])
    logits_learner(z, y, SoftBCEWithLogitsLossFlat(), cbs=LabelSmooth((.05, .001))).label_smooth.show_batch(3)
    bottom = plt.gcf().axes[3:]
    assert [o.get_title() for o in bottom] == ['1 becomes 0.95', '1 becomes 0.95, 0 becomes 0.001', '']
    mask = torch.zeros(2, 6, 6).long()
    mask[:, 2:],mask[:, 4:] = 1,255
    learn = logits_learner(torch.randn(2, 1, 6, 6), mask, SoftBCEWithLogitsLossFlat(255), cbs=LabelSmooth(.1))
    learn.label_smooth.show_batch(1)
    drawn = plt.gcf().axes[1].images[0].get_array()
    assert drawn.mask[4:].all() and not drawn.mask[:4].any()
    plt.close('all')

def test_noise_matrix_of_known_labels():
    torch.manual_seed(1)
    z = torch.randn(3000, 3)*3
    y = torch.bernoulli(z.sigmoid())
    y = torch.where((y == 1) & (torch.rand(y.shape) < .3), 0., y)
    known = torch.rand(y.shape) < .7
    seen = y.masked_fill(~known, nan)
    learn = logits_learner(z, seen, SoftBCEWithLogitsLossFlat())
    T = learn.noise_matrix(preds=(z.sigmoid(), seen), show_plot=False)
    want = fit_noise(z.sigmoid(), seen, by_class=True, sigmoid=True).T
    assert T.to_numpy() == pytest.approx(want) and T.attrs['n'] == known.sum()
    with warnings.catch_warnings(): # that it was never trained
        warnings.simplefilter('ignore')
        assert learn.noise_matrix(show_plot=False).to_numpy() == pytest.approx(want, rel=1e-4)

# What a user has: data blocks

def test_images_with_several_labels():
    names = ['cat', 'dog', 'bird']
    df = pd.DataFrame([[i, *o] for i,o in enumerate([[1, nan, 0], [0, 1, nan]]*12)], columns=['i', *names])
    ims = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3)).astype(np.uint8)
    block = DataBlock((ImageBlock, MultiCategoryBlock(encoded=True, vocab=names)), get_x=lambda r: ims[int(r['i'])],
                      get_y=ColReader(names), splitter=RandomSplitter(.3, seed=0))
    dls = block.dataloaders(df, bs=8, num_workers=0, device='cpu')
    learn = quiet(vision_learner(dls, resnet18, pretrained=False, loss_func=SoftBCEWithLogitsLossFlat(),
                                 metrics=[on_known(accuracy_multi), ECE()], cbs=LabelSmooth(.1)))
    learn.fit(1, cbs=MixUp())
    assert np.isfinite(learn.recorder.values[-1]).all()
    assert set(learn.topk().target) == {'cat', 'dog'}
    p,y = learn.get_preds()
    assert learn.validate()[1] == pytest.approx(((p > .5) == y.bool())[~y.isnan()].float().mean().item())
    learn.show_results(max_n=2)
    Interpretation.from_learner(learn).plot_top_losses(2)
    plt.close('all')

def test_a_mask_with_one_logit_and_void():
    masks = (np.random.default_rng(0).random((8, 32, 32)) < .4).astype(np.uint8)
    masks[:, :9] = 255
    ims = np.repeat(masks[..., None]*100, 3, 3).astype(np.uint8)
    block = DataBlock((ImageBlock, MaskBlock), get_x=lambda i: ims[i], get_y=lambda i: masks[i],
                      splitter=IndexSplitter([6, 7]))
    dls = block.dataloaders(range(8), bs=2, num_workers=0, device='cpu')
    learn = quiet(unet_learner(dls, resnet18, pretrained=False, n_out=1, metrics=on_known(accuracy_multi),
                               loss_func=SoftBCEWithLogitsLossFlat(ignore_index=255), cbs=LabelSmooth(.2, Spatial())))
    learn.fit(1)
    p,y = learn.get_preds()
    p,known = p[:, 0],y != 255
    loss,acc = learn.validate()
    assert loss == pytest.approx(F.binary_cross_entropy(p[known], y[known].float()).item(), rel=1e-4)
    assert acc == pytest.approx(((p > .5) == y)[known].float().mean().item())

def test_a_table_with_minus_one():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(x=rng.normal(size=80), a=rng.choice([0, 1, -1], 80), b=rng.choice([0, 1, -1], 80)))
    block = MultiCategoryBlock(encoded=True, vocab=['a', 'b'])
    dls = TabularDataLoaders.from_df(df, procs=[Normalize], cont_names=['x'], y_names=['a', 'b'], y_block=block, bs=20,
                                     num_workers=0, device='cpu', valid_idx=range(20))
    learn = quiet(tabular_learner(dls, [8], n_out=2, loss_func=SoftBCEWithLogitsLossFlat(ignore_index=-1),
                                  metrics=on_known(accuracy_multi), cbs=LabelSmooth(.1)))
    learn.fit(1)
    p,y = learn.get_preds()
    known = y != -1
    loss,acc = learn.validate()
    assert loss == pytest.approx(F.binary_cross_entropy(p[known], y[known].float()).item(), rel=1e-4)
    assert acc == pytest.approx(((p > .5) == y)[known].float().mean().item())

# Metrics that count everything

def caught(learn, **kw):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        learn.fit(1, **kw)
    return [str(o.message) for o in seen if 'expected' in str(o.message)]

@pytest.mark.parametrize('metric,is_named', [
    (accuracy_multi, True), (partial(accuracy_multi, thresh=.3), True),
    (on_known(accuracy_multi), False), (ECE(), False),
    (lambda pred, targ: pred.mean(), False)], ids=['accuracy_multi', 'partial', 'on_known', 'ECE', 'own'])
def test_a_metric_that_counts_unknown_labels_is_named(metric, is_named):
    learn,z,y,_ = learner(cbs=LabelSmooth())
    learn.metrics = L(metric)
    said = caught(learn)
    assert len(said) == is_named and all('on_known(accuracy_multi)' in o for o in said)
    learn,z,y,_ = learner(cbs=LabelSmooth())
    learn.dls.loaders[0] = DataLoader(list(zip(z, y.nan_to_num(0.))), bs=64, num_workers=0) # all known
    learn.metrics = L(metric)
    assert not caught(learn)
