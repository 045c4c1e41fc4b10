"What is said of a learner's probabilities, each number beside an independent one, and the data of each picture"
import matplotlib.pyplot as plt, sklearn.metrics as skm, torchmetrics.functional.classification as tm
import pytest, scipy.optimize
from sklearn.datasets import load_digits
from torch.testing import assert_close
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from conftest import digits_learner, logits_learner as learner, multi_data, seg_data, softmax_data

@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close('all')

def cal(*args, **kwargs): return CalibrationInterpretation.from_learner(learner(*args, **kwargs))


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
