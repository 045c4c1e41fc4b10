"What is said of a learner's probabilities, each number beside an independent one, and the data of each picture"
import random, sys, types
import matplotlib.pyplot as plt, sklearn.metrics as skm, torchmetrics.functional.classification as tm
import pytest, scipy.optimize
from sklearn.datasets import load_digits
from torch.testing import assert_close
from fastai.vision.all import *
from fastai.callback.progress import CSVLogger
from fastai_labelsmooth.all import *
from fastai_labelsmooth.interpret import _bin_sums, _ece, _adaptive_ece
from conftest import digits_learner, quiet

@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close('all')

class Logits(nn.Module):
    "A model that returns its input"
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
    def forward(self, x): return x+0*self.w

def learner(z, y, loss, bs=64, cbs=None, **kwargs):
    "A learner whose predictions are the logits `z`"
    dls = DataLoaders(*[DataLoader(list(zip(z, y)), bs=bs, num_workers=0, **kwargs) for _ in range(2)])
    return quiet(Learner(dls, Logits(), loss, cbs=cbs))

def softmax_data(m=500, n=5, scale=3.):
    z = torch.randn(m, n)*scale
    return z,(z/2).softmax(1).multinomial(1)[:, 0]

def multi_data(m=300, n=4):
    z = torch.randn(m, n)*2
    return z,torch.bernoulli((z/2).sigmoid())

def seg_data(b=6, n=4, void=255):
    z = torch.randn(b, n, 7, 9)*2
    y = torch.randint(0, n, (b, 7, 9))
    y[torch.rand(y.shape) < .2] = void
    return z,y

def cal(*args, **kwargs): return CalibrationInterpretation.from_learner(learner(*args, **kwargs))

# ---- the numbers

def check_softmax(s, z, y):
    n,p = z.shape[1],z.double().softmax(1)
    top,pred = p.max(1)
    assert s['accuracy'] == pytest.approx(skm.accuracy_score(y, pred))
    assert s['negative log-likelihood'] == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5)
    assert s['Brier score'] == pytest.approx(skm.brier_score_loss(y, p.double().numpy(), labels=range(n), scale_by_half=False), rel=1e-5)
    assert s['ECE'] == pytest.approx(tm.multiclass_calibration_error(p, y, n, n_bins=15).item(), rel=1e-4)
    one = [tm.binary_calibration_error(p[:, j], (y == j).long(), n_bins=15).item() for j in range(n)]
    assert s['classwise ECE'] == pytest.approx(np.mean(one), rel=1e-4)
    idx = np.argsort(top.numpy(), kind='stable')
    parts = [(top.numpy()[i], (pred == y).numpy()[i]) for i in np.array_split(idx, 15)]
    assert s['adaptive ECE'] == pytest.approx(sum(len(a)*abs(a.mean()-b.mean()) for a,b in parts)/len(y), rel=1e-4)
    assert s['mean top probability'] == pytest.approx(top.mean().item(), rel=1e-5)
    assert s.iloc[7] == pytest.approx(np.mean([o.max()-np.delete(o, o.argmax()).mean() for o in z.numpy()]), rel=1e-5)

@pytest.mark.parametrize('loss', [CrossEntropyLossFlat, nn.CrossEntropyLoss, lambda: F.cross_entropy, LabelSmoothingCrossEntropyFlat, LabelSmoothingCrossEntropy,
                                  lambda: nn.CrossEntropyLoss(label_smoothing=.1), FocalLossFlat])
def test_softmax(loss):
    z,y = softmax_data()
    check_softmax(cal(z, y, loss()).summary().loc['all'], z, y)

def test_segmentation_leaves_void_out():
    z,y = seg_data()
    keep = y.flatten() != 255
    res = cal(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255), bs=2)
    check_softmax(res.summary().loc['all'], z.movedim(1, -1).reshape(-1, 4)[keep], y.flatten()[keep])
    assert res.count == keep.sum() < y.numel()

def test_multilabel():
    z,y = multi_data()
    s,p = cal(z, y, BCEWithLogitsLossFlat()).summary(),z.sigmoid()
    assert list(s.index) == [0, 1, 2, 3, 'all']
    for j in range(4):
        r,a,b = s.loc[j],y[:, j],p[:, j].double()
        assert r['accuracy'] == pytest.approx(skm.accuracy_score(a, b > .5))
        assert r['negative log-likelihood'] == pytest.approx(skm.log_loss(a, b), rel=1e-5)
        assert r['Brier score'] == pytest.approx(skm.brier_score_loss(a, b), rel=1e-5)
        assert r['ECE'] == r['classwise ECE'] == pytest.approx(tm.binary_calibration_error(b, a.long(), n_bins=15).item(), rel=1e-4)
        assert r['mean top probability'] == pytest.approx(b.maximum(1-b).mean().item(), rel=1e-5)
        assert r.iloc[7] == pytest.approx(z[:, j].abs().mean().item(), rel=1e-5)
    all = s.loc['all']
    assert all['ECE'] == pytest.approx(tm.binary_calibration_error(p.flatten(), y.flatten().long(), n_bins=15).item(), rel=1e-4)
    assert all['classwise ECE'] == pytest.approx(s['ECE'].iloc[:4].mean())
    assert all['accuracy'] == pytest.approx(((p > .5) == y.bool()).float().mean().item())

def test_binary_logits_without_a_label_axis():
    z,y = multi_data(200, 1)
    a,b = (cal(*o, BCEWithLogitsLossFlat()).summary().loc['all'] for o in ((z, y), (z[:, 0], y[:, 0])))
    assert a.equals(b) and a['accuracy'] == pytest.approx(((z > 0) == y.bool()).float().mean().item())

def test_bins_by_hand():
    "Bins are (lo, hi], and a perfect 0 belongs to the first"
    p = torch.tensor([0., .25, .5, .5001, 1.], dtype=torch.double)[:, None]
    n,sp,sy = _bin_sums(p, torch.tensor([0, 1, 1, 0, 1])[:, None], 4)[:, 0]
    assert n.tolist() == [2, 1, 1, 1] and sy.tolist() == [1, 1, 0, 1]
    assert sp.tolist() == pytest.approx([.25, .5, .5001, 1.])
    assert _ece(torch.stack([n, sp, sy])).item() == pytest.approx((.75+.5+.5001+0)/5)
    assert _adaptive_ece(p[:4, 0], torch.tensor([0, 1, 1, 1]), 2) == pytest.approx((abs(.25-1)+abs(1.0001-2))/4)

def test_streamed_in_any_batches():
    z,y = seg_data()
    a,b = (cal(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255), bs=bs).summary() for bs in (1, 6))
    pd.testing.assert_frame_equal(a, b)

def test_the_sample_is_bounded_and_fair():
    z,y = softmax_data(3000)
    learn = learner(z, y, CrossEntropyLossFlat())
    full,small,again = (CalibrationInterpretation.from_learner(learn, max_n=o) for o in (3000, 400, 400))
    assert [len(o) for o in small.sample.rows] == [400]*3
    assert all(a.equal(b) for a,b in zip(small.sample.rows, again.sample.rows))
    a,b = full.summary().loc['all'],small.summary().loc['all']
    assert a.drop('adaptive ECE').equals(b.drop('adaptive ECE')) and a['adaptive ECE'] != b['adaptive ECE']
    gap = full.sample.rows[2].flatten()
    assert (small.sample.rows[2].mean()-gap.mean()).abs() < 4*gap.std()/20
    seen = torch.isin(gap, small.sample.rows[2]).nonzero()[:, 0] # from all of the stream, not its beginning
    assert 1300 < seen.double().mean() < 1700 and 25 < (seen % 64).double().mean() < 38 # nor that of its batches

def test_keeps_no_predictions():
    z,y = seg_data(20)
    res = cal(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255), bs=2)
    res2 = CalibrationInterpretation.from_learner(res.learn, max_n=50)
    assert sum(o.numel() for o in [res2.sums, res2.bins, res2.classes, res2.losses, *res2.sample.rows]) < z.numel()/10

def test_it_is_an_interpretation():
    z,y = softmax_data(100)
    res = CalibrationInterpretation.from_learner(learner(z, y, CrossEntropyLossFlat(), shuffle=True))
    assert_close(res.losses, F.cross_entropy(z, y, reduction='none'))
    losses,idx = res.top_losses(3)
    assert idx[0] == F.cross_entropy(z, y, reduction='none').argmax()

def test_act():
    z,y = softmax_data()
    res = CalibrationInterpretation.from_learner(learner(z, y, CrossEntropyLossFlat()), act=lambda o: (o/2).softmax(1)).summary()
    assert res['negative log-likelihood'].item() == pytest.approx(F.cross_entropy(z/2, y).item(), rel=1e-5)

def test_dense_targets_and_those_of_tabular_data():
    z,y = softmax_data(200)
    check_softmax(cal(z, F.one_hot(y, 5).float(), SoftCrossEntropyLossFlat()).summary().loc['all'], z, y)
    check_softmax(cal(z, y[:, None], CrossEntropyLossFlat()).summary().loc['all'], z, y)

# ---- the pictures' data

def test_plot_reliability():
    z,y = softmax_data()
    cal(z, y, CrossEntropyLossFlat()).plot_reliability()
    top,hist = plt.gcf().axes
    p,pred = z.softmax(1).max(1)
    bins = [(i/15 < p) & (p <= (i+1)/15) for i in range(15)]
    acc = [(pred == y)[b].float().mean().item() for b in bins if b.any()]
    conf = [p[b].mean().item() for b in bins if b.any()]
    bars,gaps = top.containers
    assert [o.get_height() for o in bars] == pytest.approx(acc)
    assert [o.get_y() for o in gaps] == pytest.approx(acc)
    assert [o.get_y()+o.get_height() for o in gaps] == pytest.approx(conf)
    assert [o.get_x()+o.get_width()/2 for o in bars] == pytest.approx([(i+.5)/15 for i,b in enumerate(bins) if b.any()])
    assert [o.get_height() for o in hist.containers[0]] == pytest.approx([100*b.float().mean().item() for b in bins])
    assert top.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]

def test_plot_reliability_of_a_label():
    z,y = multi_data()
    res = cal(z, y, BCEWithLogitsLossFlat())
    res.plot_reliability(label=2)
    p,hist = z.sigmoid()[:, 2],plt.gcf().axes[1].containers[0]
    assert [o.get_height() for o in hist] == pytest.approx((100*torch.histc(p, 15, 0, 1)/len(p)).tolist(), rel=1e-5)
    with pytest.raises(ValueError, match="label=9: expected one of"): res.plot_reliability(label=9)
    with pytest.raises(ValueError, match="only a multilabel"): cal(*softmax_data(), CrossEntropyLossFlat()).plot_confidence(label=0)

@pytest.mark.parametrize('mode', ['exact', 'paper'])
def test_plot_logit_gap(mode):
    z,y = softmax_data(n=10)
    res = cal(z, y, CrossEntropyLossFlat(), cbs=LabelSmooth(.1, mode))
    res.plot_logit_gap(bins=20)
    ax = plt.gca()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(math.log(.9/(.1/9)) if mode == 'exact' else math.log(.91/.01))
    gaps = [o.max()-np.delete(o, o.argmax()).mean() for o in z.double().numpy()]
    assert [o.get_height() for o in ax.patches] == pytest.approx((100*np.histogram(gaps, 20)[0]/500).tolist())
    res.plot_logit_gap(eps=.2, mode='exact')
    assert plt.gca().lines[0].get_xdata()[0] == pytest.approx(math.log(.8/(.2/9)))

def test_plot_logit_gap_has_no_line_without_an_optimum():
    z,y = softmax_data()
    res = [cal(z, y, CrossEntropyLossFlat(), cbs=cbs) for cbs in (None, LabelSmooth(0.), LabelSmooth(mode=lambda *args: None))]
    for o in res:
        o.plot_logit_gap()
        assert not plt.gca().lines

def test_plot_logit_gap_of_a_schedule_and_a_pair():
    cal(*softmax_data(), CrossEntropyLossFlat(), cbs=LabelSmooth(SchedCos(.1, .2))).plot_logit_gap()
    assert plt.gca().lines[0].get_xdata()[0] == pytest.approx(logit_gap(.2, 5))
    z,y = multi_data()
    cal(z, y, BCEWithLogitsLossFlat(), cbs=LabelSmooth((.05, .001))).plot_logit_gap()
    ax = plt.gca()
    assert [o.get_xdata()[0] for o in ax.lines] == pytest.approx([math.log(.95/.05), math.log(.001/.999)])
    assert [sum(o.get_height() for o in c) for c in ax.containers] == pytest.approx([100*y.mean().item(), 100*(1-y).mean().item()])

def test_plot_confidence():
    z,y = softmax_data()
    cal(z, y, CrossEntropyLossFlat()).plot_confidence(bins=10)
    p,pred = z.softmax(1).max(1)
    for bars,o in zip(plt.gca().containers, (p[pred == y], p[pred != y])):
        assert [b.get_height() for b in bars] == pytest.approx((100*torch.histc(o, 10, 0, 1)/len(o)).tolist(), rel=1e-5)

@pytest.mark.parametrize('mode', ['exact', 'paper'])
def test_plot_targets(mode):
    plot_targets(.2, 5, mode, y=2)
    hard,soft = plt.gca().containers
    on,off = {'exact': (.8, .05), 'paper': (.84, .04)}[mode]
    assert [o.get_height() for o in hard] == [0, 0, 1, 0, 0]
    assert [o.get_height() for o in soft] == pytest.approx([off, off, on, off, off])

# ---- temperature

def test_temperature_is_the_minimum():
    z,y = softmax_data(2000)
    t = temperature(learner(z, y, CrossEntropyLossFlat()))
    assert t == pytest.approx(scipy.optimize.minimize_scalar(lambda t: F.cross_entropy(z.double()/t, y).item(), bounds=(.1, 10), method='bounded').x, rel=1e-3)
    assert t == pytest.approx(2, rel=.15) # the labels were drawn at temperature 2

def test_temperature_of_sigmoid_and_segmentation():
    z,y = multi_data(1000)
    t = temperature(learner(z, y, BCEWithLogitsLossFlat()))
    ref = scipy.optimize.minimize_scalar(lambda t: F.binary_cross_entropy_with_logits(z.double()/t, y.double()).item(), bounds=(.1, 10), method='bounded').x
    assert t == pytest.approx(ref, rel=1e-3)
    z = torch.randn(4, 3, 8, 8)*3
    y = (z/1.5).softmax(1).movedim(1, -1).reshape(-1, 3).multinomial(1).view(4, 8, 8)
    y[:, 0] = 255
    t = temperature(learner(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255)))
    ref = scipy.optimize.minimize_scalar(lambda t: F.cross_entropy(z.double()/t, y, ignore_index=255).item(), bounds=(.1, 10), method='bounded').x
    assert t == pytest.approx(ref, rel=1e-3)

@pytest.mark.parametrize('loss,data', [(CrossEntropyLossFlat, softmax_data), (nn.CrossEntropyLoss, softmax_data), (LabelSmoothingCrossEntropyFlat, softmax_data),
    (BCEWithLogitsLossFlat, multi_data), (partial(BCEWithLogitsLossFlat, thresh=.3), multi_data)])
def test_calibrate(loss, data):
    z,y = data()
    loss = loss()
    learn = learner(z, y, loss, cbs=LabelSmooth() if isinstance(loss, nn.Module) else None)
    probs,_,decoded = learn.get_preds(with_decoded=True)
    valid = learn.validate()[0]
    t = learn.calibrate()
    after,_,decoded2 = learn.get_preds(with_decoded=True)
    assert_close(after, (z/t).sigmoid() if data is multi_data else (z/t).softmax(1))
    assert not torch.allclose(after, probs, atol=.01) and decoded.equal(decoded2)
    assert learn.validate()[0] == valid
    assert learn.calibrate() == pytest.approx(t, rel=1e-4) # found again on the logits
    assert learn.get_preds(with_decoded=True)[2].equal(decoded)
    s = CalibrationInterpretation.from_learner(learn).summary()
    nll = F.binary_cross_entropy_with_logits(z/t, y) if data is multi_data else F.cross_entropy(z/t, y)
    assert s.loc['all', 'negative log-likelihood'] == pytest.approx(nll.item(), rel=1e-4)
    learn.calibrate(1.)
    assert_close(learn.get_preds()[0], probs)

def test_calibrate_changes_no_training_and_no_other_learner():
    learns = [digits_learner(LabelSmooth(.1)) for _ in range(2)]
    for o in learns: o.fit(1)
    learns[0].calibrate(3.)
    loss = learns[0].loss_func
    for o in learns:
        set_seed(1)
        o.fit(1)
    assert learns[0].loss_func is loss and learns[0].recorder.losses[-1] == learns[1].recorder.losses[-1]
    assert_close(*[next(o.model.parameters()) for o in learns], rtol=0, atol=0)
    shared = CrossEntropyLossFlat()
    a,b = (learner(*softmax_data(), shared) for _ in range(2))
    a.calibrate(2.)
    assert b.loss_func is shared and 'activation' not in vars(shared)

@pytest.mark.parametrize('temp', [0, -1., math.nan, math.inf])
def test_calibrate_refuses(temp):
    with pytest.raises(ValueError, match='temp='): learner(*softmax_data(), CrossEntropyLossFlat()).calibrate(temp)

def pixels(i): return TensorImage(load_digits().images[i]/16).float()[None]
def label(i): return load_digits().target[i]

def test_calibration_survives_export(tmp_path):
    dls = Datasets(range(60), [[pixels], [label, Categorize(range(10))]], splits=(range(30), range(30, 60))).dataloaders(bs=30, num_workers=0)
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), nn.CrossEntropyLoss(), cbs=LabelSmooth(), path=tmp_path)
    with learn.no_bar():
        t = learn.calibrate()
        probs,z,top,pred = learn.get_preds()[0],learn.get_preds(act=noop)[0],learn.topk(k=2),learn.predict(31)
        learn.export()
        loaded = load_learner(tmp_path/'export.pkl')
        assert_close(probs, (z/t).softmax(1))
        assert_close(loaded.get_preds(dl=dls.valid)[0], probs)
        assert_close(loaded.predict(31)[2], probs[1]); assert_close(pred[2], probs[1])
        assert top['prob_1'].to_numpy() == pytest.approx(probs.max(1).values.numpy())

# ---- metrics

@pytest.mark.parametrize('eps', [None, .2])
def test_metrics(eps):
    learn = digits_learner(LabelSmooth(eps) if eps else None)
    learn.metrics = L(ECE(), BrierScore())
    learn.fit(1)
    got = learn.recorder.values[-1][2:]
    probs,y = learn.get_preds()
    assert learn.recorder.metric_names[3:5] == ['ece', 'brier_score']
    assert got[0] == pytest.approx(tm.multiclass_calibration_error(probs, y, 10, n_bins=15).item(), rel=1e-4)
    assert got[1] == pytest.approx(skm.brier_score_loss(y, probs.double().numpy(), labels=range(10), scale_by_half=False), rel=1e-4)

def test_metrics_of_segmentation():
    z,y = seg_data()
    learn = learner(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255), bs=2)
    learn.metrics = L(ECE(axis=1, n_bins=7, ignore_index=255), BrierScore(axis=1, ignore_index=255))
    _,ece,brier = learn.validate()
    assert ece == pytest.approx(tm.multiclass_calibration_error(z.softmax(1), y, 4, n_bins=7, ignore_index=255).item(), rel=1e-4)
    keep = y.flatten() != 255
    p = z.softmax(1).movedim(1, -1).reshape(-1, 4)[keep]
    assert brier == pytest.approx((p-F.one_hot(y.flatten()[keep], 4)).pow(2).sum(1).mean().item(), rel=1e-4)

# ---- before training

def heights(ax): return [[o.get_height() for o in c] for c in ax.containers]

def test_show_batch_softmax():
    learn = digits_learner(LabelSmooth(.1))
    learn.label_smooth.show_batch(max_n=3)
    axs = plt.gcf().axes
    assert len(axs) == 6
    for ax in axs[3:]:
        hard,soft = heights(ax)
        assert sorted(hard) == [0]*9+[1] and soft == pytest.approx([.9 if o else .1/9 for o in hard])

def test_show_batch_multilabel_and_schedule():
    z,y = multi_data()
    learn = learner(z, y, BCEWithLogitsLossFlat(), cbs=LabelSmooth((.05, .001)))
    learn.label_smooth.show_batch(max_n=2)
    for t,ax in zip(y, plt.gcf().axes[2:]): assert heights(ax)[1] == pytest.approx([.95 if o else .001 for o in t])
    learner(z, y, BCEWithLogitsLossFlat(), cbs=LabelSmooth(SchedCos(.2, 0.))).label_smooth.show_batch(max_n=1)
    assert heights(plt.gcf().axes[1])[1] == pytest.approx([.8 if o else .2 for o in y[0]])

def test_show_batch_segmentation():
    z,y = seg_data(n=3)
    learn = learner(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255), cbs=LabelSmooth(.1, 'paper'))
    learn.label_smooth.show_batch(max_n=2)
    for m,ax in zip(y, plt.gcf().axes[2:]):
        assert ax.get_title() == f'true class {.9+.1/3:.3g},\neach other {.1/3:.3g}'
        mask,edge = (o.get_array() for o in ax.images)
        assert (mask.mask == (m == 255).numpy()).all() and (mask.compressed() == m[m != 255].numpy()).all()
    flat = torch.zeros(3, 6, 6, dtype=torch.long)
    flat[:, :, 3:] = 1
    learner(torch.rand(3, 2, 6, 6), flat, CrossEntropyLossFlat(axis=1), cbs=LabelSmooth(.1)).label_smooth.show_batch(max_n=1)
    assert np.argwhere(~plt.gcf().axes[1].images[1].get_array().mask).tolist() == [[i, 2] for i in range(6)]

def test_show_batch_of_a_binary_mask():
    y = torch.zeros(3, 1, 6, 6)
    y[:, :, 2:] = 1
    learner(torch.randn(3, 1, 6, 6), y, BCEWithLogitsLossFlat(), cbs=LabelSmooth((.1, .02))).label_smooth.show_batch(max_n=1)
    assert plt.gcf().axes[1].get_title() == '1 becomes 0.9, 0 becomes 0.02'

def test_show_batch_of_a_smoother_that_learns():
    class Smoother:
        seen = 0
        def __call__(self, targ, pred, eps, axis, ignore_index):
            self.seen += 1
            return pred.softmax(axis)
    smoother = Smoother()
    learn = digits_learner(LabelSmooth(mode=smoother))
    learn.label_smooth.show_batch(max_n=1)
    assert smoother.seen == 0 and sum(heights(plt.gcf().axes[1])[1]) == pytest.approx(1)

def test_show_batch_leaves_the_learner_as_it_was():
    def train(show):
        learn = digits_learner(LabelSmooth(.1))
        learn.model = nn.Sequential(nn.BatchNorm1d(64), learn.model, nn.Dropout(.1))
        if show:
            learn.model[2].eval()
            before,names,states = {k:v.clone() for k,v in learn.model.state_dict().items()},set(vars(learn)),(torch.get_rng_state(), random.getstate())
            learn.label_smooth.show_batch(max_n=1)
            assert all(v.equal(before[k]) for k,v in learn.model.state_dict().items()) and set(vars(learn)) == names
            assert learn.model[0].training and not learn.model[2].training
            assert torch.get_rng_state().equal(states[0]) and random.getstate() == states[1]
        learn.fit(1)
        return torch.cat([o.detach().flatten() for o in learn.model.parameters()])
    assert_close(train(False), train(True), rtol=0, atol=0)

def test_show_batch_of_tabular_data():
    df = pd.DataFrame({'x': np.random.randn(16), 'c': ['u', 'v']*8, 'y': ['a', 'b', 'b', 'b']*4})
    from fastai.tabular.all import TabularDataLoaders, tabular_learner, Categorify, Normalize
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, Normalize], cat_names=['c'], cont_names=['x'], y_names='y', y_block=CategoryBlock(), bs=4, num_workers=0)
    tabular_learner(dls, n_out=2, loss_func=CrossEntropyLossFlat(), cbs=LabelSmooth(.1)).label_smooth.show_batch(2)
    axs = plt.gcf().axes
    assert all('c=' in o.texts[0].get_text() for o in axs[:2])
    for o,ax in zip(axs[:2], axs[2:]):
        soft = [.9, .1] if 'y=a' in o.texts[0].get_text() else [.1, .9]
        assert heights(ax)[1] == pytest.approx(soft) and [t.get_text() for t in ax.get_xticklabels()] == ['a', 'b']

def test_show_batch_says_the_two_values():
    digits_learner(LabelSmooth(.1)).label_smooth.show_batch(1)
    assert plt.gcf().axes[1].get_title() == 'true class 0.9,\neach other 0.0111'
    z,y = multi_data(16)
    y[0],y[1] = 0,1
    learner(z, y, BCEWithLogitsLossFlat(), cbs=LabelSmooth((.05, .001))).label_smooth.show_batch(2)
    assert [ax.get_title() for ax in plt.gcf().axes[2:]] == ['0 becomes 0.001', '1 becomes 0.95']

def test_show_batch_in_vain():
    with pytest.raises(ValueError, match='in no Learner'): LabelSmooth().show_batch()
    with pytest.raises(ValueError, match='max_n=0'): digits_learner(LabelSmooth()).label_smooth.show_batch(0)

def test_show_batch_without_targets():
    learn = digits_learner(LabelSmooth())
    learn.dls.loaders[0] = DataLoader([(torch.rand(64),)]*8, bs=4, num_workers=0)
    with pytest.raises(ValueError, match='no targets'): learn.label_smooth.show_batch()

# ---- logs

def test_gather_args(monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', types.ModuleType('wandb')) # not installed; its fastai module only needs the import
    import fastai.callback.wandb # patches `gather_args`
    for cb in (LabelSmooth(.2, 'paper'), LabelSmooth(SchedCos(.2, 0.))):
        args = digits_learner(cb).gather_args()
        assert args['LabelSmooth']['eps'] == cb.eps and args['LabelSmooth']['mode'] == cb.mode

def test_csv_logger(tmp_path):
    learn = digits_learner([LabelSmooth(.1), CSVLogger()], path=tmp_path)
    learn.metrics = L(ECE(), BrierScore())
    learn.fit(2)
    log = learn.csv_logger.read_log()
    assert list(log.columns) == ['epoch', 'train_loss', 'valid_loss', 'ece', 'brier_score', 'time'] and len(log) == 2
    assert log['ece'].iloc[-1] == pytest.approx(learn.recorder.values[-1][2])

# ---- bad input

@pytest.mark.parametrize('f', [CalibrationInterpretation.from_learner, temperature])
def test_bad_input(f):
    z,y = softmax_data(20)
    learn = learner(z, y, CrossEntropyLossFlat())
    with pytest.raises(ValueError, match='dl has no targets'): f(learn, dl=DataLoader([(o,) for o in z], bs=4, num_workers=0))
    with pytest.raises(ValueError, match='dl is empty'): f(learn, dl=DataLoader([], bs=4, num_workers=0))
    with pytest.raises(TypeError, match='expected the loss of a classifier'): f(learner(z, z, MSELossFlat()))
    with pytest.raises(ValueError, match='predictions are NaN'): f(learner(z*math.nan, y, CrossEntropyLossFlat()))
    with pytest.raises(ValueError, match='n=1 class'): f(learner(z[:, :1], y*0, CrossEntropyLossFlat()))
    with pytest.raises(ValueError, match='that counts'): f(learner(z, y*0-100, CrossEntropyLossFlat()))
    assert learn.loss_func.reduction == 'mean' and len(learn.get_preds()[0]) == 20 # as it was

@pytest.mark.parametrize('temp', [0, -1., math.inf, math.nan, '1', True])
def test_calibrate_refuses(temp):
    learn = learner(*softmax_data(20), CrossEntropyLossFlat())
    loss = learn.loss_func
    with pytest.raises(ValueError, match='temp=.*positive number'): learn.calibrate(temp)
    assert learn.loss_func is loss

def test_a_set_without_mistakes_has_no_temperature():
    z,_ = softmax_data(20)
    with pytest.raises(ValueError, match='at least one mistake'): temperature(learner(z, z.argmax(1), CrossEntropyLossFlat()))
    with pytest.raises(ValueError, match='at least one mistake'): temperature(learner(z, (z > 0).float(), BCEWithLogitsLossFlat()))

# ---- topk

def test_topk_softmax():
    z,y = softmax_data(100)
    top = learner(z, y, CrossEntropyLossFlat()).topk(k=3)
    probs,idx = z.softmax(1).topk(3)
    assert list(top) == ['target', 'loss', 'pred_1', 'prob_1', 'pred_2', 'prob_2', 'pred_3', 'prob_3']
    assert top['target'].tolist() == y.tolist()
    assert top['loss'].to_numpy() == pytest.approx([-math.log(p[t]) for p,t in zip(z.double().softmax(1).tolist(), y.tolist())], rel=1e-4, abs=1e-6)
    for i in range(3):
        assert top[f'pred_{i+1}'].tolist() == idx[:, i].tolist()
        assert top[f'prob_{i+1}'].to_numpy() == pytest.approx(probs[:, i].numpy())

def test_topk_multilabel_names():
    z,y = multi_data(50)
    learn = learner(z, y, BCEWithLogitsLossFlat())
    learn.dls.vocab = list('abcd')
    top = learn.topk(k=2)
    assert top['target'].tolist() == [';'.join(c for c,t in zip('abcd', o) if t) for o in y]
    assert top['pred_1'].tolist() == ['abcd'[i] for i in z.argmax(1)]
    assert top['prob_2'].to_numpy() == pytest.approx(z.sigmoid().topk(2).values[:, 1].numpy())

@pytest.mark.parametrize('pred_column', [True, False])
@pytest.mark.parametrize('targ_column', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.int64, torch.bool])
def test_topk_of_one_logit(pred_column, targ_column, dtype):
    "Two classes, no and yes"
    z,y = multi_data(50, 1)
    learn = learner(z if pred_column else z[:, 0], (y if targ_column else y[:, 0]).to(dtype), BCEWithLogitsLossFlat())
    learn.dls.vocab = ['no', 'yes']
    top,p = learn.topk(k=2),z.sigmoid()[:, 0]
    assert top['target'].tolist() == [['no', 'yes'][int(o)] for o in y[:, 0]]
    assert top['pred_1'].tolist() == [['no', 'yes'][int(o > .5)] for o in p]
    assert top['prob_1'].to_numpy() == pytest.approx(p.maximum(1-p).numpy()) and top['prob_2'].to_numpy() == pytest.approx(p.minimum(1-p).numpy())
    assert top['loss'].to_numpy() == pytest.approx(F.binary_cross_entropy(p, y[:, 0], reduction='none').numpy(), rel=1e-4, abs=1e-6)
    assert list(learn.topk(k=1, dl=DataLoader([(o,) for o in z], bs=8, num_workers=0))) == ['pred_1', 'prob_1']

def test_topk_names_of_two_classes_of_text():
    "fastai's text has two vocabularies, and here as many classes"
    z,y = softmax_data(20, 2)
    learn = learner(z, y, CrossEntropyLossFlat())
    for vocab in ([['xxunk', 'xxpad', 'film'], ['neg', 'pos']], ['neg', 'pos']):
        learn.dls.vocab = vocab
        assert learn.topk(k=1)['pred_1'].tolist() == [['neg', 'pos'][i] for i in z.argmax(1)]

def test_topk_of_a_shuffled_dl_and_without_targets():
    z,y = softmax_data(100)
    learn = learner(z, y, CrossEntropyLossFlat())
    pd.testing.assert_frame_equal(learn.topk(dl=DataLoader(list(zip(z, y)), bs=8, shuffle=True, num_workers=0)), learn.topk())
    top = learn.topk(k=2, dl=DataLoader([(o,) for o in z], bs=8, shuffle=True, num_workers=0))
    assert list(top) == ['pred_1', 'prob_1', 'pred_2', 'prob_2'] and top['pred_1'].tolist() == z.argmax(1).tolist()

def test_the_training_set_whole_and_in_order():
    "Although its loader shuffles and drops the last batch"
    z,y = softmax_data(100)
    learn = learner(z, y, CrossEntropyLossFlat(), shuffle=True, drop_last=True)
    top = learn.topk(ds_idx=0)
    assert top['target'].tolist() == y.tolist() and top['pred_1'].tolist() == z.argmax(1).tolist()
    assert CalibrationInterpretation.from_learner(learn, ds_idx=0).count == 100

@pytest.mark.parametrize('k', [0, -1, 1.5, 'a', True, 6])
def test_topk_refuses_k(k):
    with pytest.raises(ValueError, match='k='): learner(*softmax_data(20), CrossEntropyLossFlat()).topk(k=k)

def test_topk_refuses_what_is_no_distribution_an_item():
    z,y = softmax_data(20)
    with pytest.raises(ValueError, match='no probabilities'): learner(z, y, nn.CrossEntropyLoss()).topk()
    with pytest.raises(ValueError, match='of shape'): learner(*seg_data(), CrossEntropyLossFlat(axis=1, ignore_index=255)).topk()
