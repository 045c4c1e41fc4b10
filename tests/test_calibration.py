"Calibration of a learner's probabilities: each number against an independent one, and the data of each picture"
import matplotlib.pyplot as plt, sklearn.metrics as skm, torchmetrics.functional.classification as tm
import pytest, scipy.optimize
from pytest import param
from sklearn.datasets import load_digits
from torch.testing import assert_close
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from fastai_labelsmooth.interpret.calibration import _accuracy_behind
from helpers import digits_learner, logits_learner as learner, multi_data, seg_data, softmax_data

@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close('all')

def cal(*args, **kwargs): return CalibrationInterpretation.from_learner(learner(*args, **kwargs))

def best_temp(nll):
    "The temperature at which a function of it is least, by scipy"
    return scipy.optimize.minimize_scalar(nll, bounds=(.1, 10), method='bounded').x

def check_softmax(s, z, y):
    "A row of `summary` against sklearn and torchmetrics"
    n,p = z.shape[1],z.double().softmax(1)
    top,pred = p.max(1)
    assert s['accuracy'] == pytest.approx(skm.accuracy_score(y, pred))
    assert s['negative log-likelihood'] == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-5)
    brier = skm.brier_score_loss(y, p.double().numpy(), labels=range(n), scale_by_half=False)
    assert s['Brier score'] == pytest.approx(brier, rel=1e-5)
    assert s['ECE'] == pytest.approx(tm.multiclass_calibration_error(p, y, n, n_bins=15).item(), rel=1e-4)
    one = [tm.binary_calibration_error(p[:, j], (y == j).long(), n_bins=15).item() for j in range(n)]
    assert s['classwise ECE'] == pytest.approx(np.mean(one), rel=1e-4)
    idx = np.argsort(top.numpy(), kind='stable')
    parts = [(top.numpy()[i], (pred == y).numpy()[i]) for i in np.array_split(idx, 15)]
    assert s['adaptive ECE'] == pytest.approx(sum(len(a)*abs(a.mean()-b.mean()) for a,b in parts)/len(y), rel=1e-4)
    assert s['mean top probability'] == pytest.approx(top.mean().item(), rel=1e-5)
    assert s.iloc[7] == pytest.approx(np.mean([o.max()-np.delete(o, o.argmax()).mean() for o in z.numpy()]), rel=1e-5)

smoothing = nn.CrossEntropyLoss(label_smoothing=.1)

@pytest.mark.parametrize('loss', [
    CrossEntropyLossFlat(),
    nn.CrossEntropyLoss(),
    F.cross_entropy,
    LabelSmoothingCrossEntropyFlat(),
    LabelSmoothingCrossEntropy(),
    param(smoothing, id='label_smoothing'),
    FocalLossFlat()])
def test_softmax(loss):
    z,y = softmax_data()
    check_softmax(cal(z, y, loss).summary().loc['all'], z, y)

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
        ece = tm.binary_calibration_error(b, a.long(), n_bins=15).item()
        assert r['ECE'] == r['classwise ECE'] == pytest.approx(ece, rel=1e-4)
        assert r['mean top probability'] == pytest.approx(b.maximum(1-b).mean().item(), rel=1e-5)
        assert r.iloc[7] == pytest.approx(z[:, j].abs().mean().item(), rel=1e-5)
    all = s.loc['all']
    ece = tm.binary_calibration_error(p.flatten(), y.flatten().long(), n_bins=15).item()
    assert all['ECE'] == pytest.approx(ece, rel=1e-4)
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
    kept = [*res2.sums, *res2.bins, *res2.classes, res2.losses, *res2.sample.rows]
    assert sum(o.numel() for o in kept) < z.numel()/10

def test_it_is_an_interpretation():
    z,y = softmax_data(100)
    res = CalibrationInterpretation.from_learner(learner(z, y, CrossEntropyLossFlat(), shuffle=True))
    assert_close(res.losses, F.cross_entropy(z, y, reduction='none'))
    losses,idx = res.top_losses(3)
    assert idx[0] == F.cross_entropy(z, y, reduction='none').argmax()

def test_act():
    z,y = softmax_data()
    def act(o): return (o/2).softmax(1)
    res = CalibrationInterpretation.from_learner(learner(z, y, CrossEntropyLossFlat()), act=act).summary()
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
    classes = cal(*softmax_data(), CrossEntropyLossFlat())
    with pytest.raises(ValueError, match="only a multilabel"): classes.plot_confidence(label=0)

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
    for cbs in (None, LabelSmooth(0.), LabelSmooth(mode=lambda *args: None)):
        cal(z, y, CrossEntropyLossFlat(), cbs=cbs).plot_logit_gap()
        assert not plt.gca().lines

def test_plot_logit_gap_of_a_schedule_and_a_pair():
    cal(*softmax_data(), CrossEntropyLossFlat(), cbs=LabelSmooth(SchedCos(.1, .2))).plot_logit_gap()
    assert plt.gca().lines[0].get_xdata()[0] == pytest.approx(logit_gap(.2, 5))
    z,y = multi_data()
    cal(z, y, BCEWithLogitsLossFlat(), cbs=LabelSmooth((.05, .001))).plot_logit_gap()
    ax = plt.gca()
    assert [o.get_xdata()[0] for o in ax.lines] == pytest.approx([math.log(.95/.05), math.log(.001/.999)])
    shares = [100*y.mean().item(), 100*(1-y).mean().item()]
    assert [sum(o.get_height() for o in c) for c in ax.containers] == pytest.approx(shares)

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
    assert t == pytest.approx(best_temp(lambda t: F.cross_entropy(z.double()/t, y).item()), rel=1e-3)
    assert t == pytest.approx(2, rel=.15) # the labels were drawn at temperature 2

def test_temperature_of_sigmoid_and_segmentation():
    z,y = multi_data(1000)
    t = temperature(learner(z, y, BCEWithLogitsLossFlat()))
    ref = best_temp(lambda t: F.binary_cross_entropy_with_logits(z.double()/t, y.double()).item())
    assert t == pytest.approx(ref, rel=1e-3)
    z = torch.randn(4, 3, 8, 8)*3
    y = (z/1.5).softmax(1).movedim(1, -1).reshape(-1, 3).multinomial(1).view(4, 8, 8)
    y[:, 0] = 255
    t = temperature(learner(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255)))
    ref = best_temp(lambda t: F.cross_entropy(z.double()/t, y, ignore_index=255).item())
    assert t == pytest.approx(ref, rel=1e-3)

@pytest.mark.parametrize('loss,data', [
    (CrossEntropyLossFlat(), softmax_data),
    (nn.CrossEntropyLoss(), softmax_data),
    (LabelSmoothingCrossEntropyFlat(), softmax_data),
    (BCEWithLogitsLossFlat(), multi_data),
    param(BCEWithLogitsLossFlat(thresh=.3), multi_data, id='thresh')])
def test_calibrate(loss, data):
    z,y = data()
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

data = load_digits()

def pixels(i): return TensorImage(data.images[i]/16).float()[None]
def label(i): return data.target[i]

def test_calibration_survives_export(tmp_path):
    dsets = Datasets(range(60), [[pixels], [label, Categorize(range(10))]], splits=(range(30), range(30, 60)))
    dls = dsets.dataloaders(bs=30, num_workers=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    learn = Learner(dls, model, nn.CrossEntropyLoss(), cbs=LabelSmooth(), path=tmp_path)
    with learn.no_bar():
        t = learn.calibrate()
        probs,z,top,pred = learn.get_preds()[0],learn.get_preds(act=noop)[0],learn.topk(k=2),learn.predict(31)
        learn.export()
        loaded = load_learner(tmp_path/'export.pkl')
        assert_close(probs, (z/t).softmax(1))
        assert_close(loaded.get_preds(dl=dls.valid)[0], probs)
        assert_close(loaded.predict(31)[2], probs[1])
        assert_close(pred[2], probs[1])
        assert top['prob_1'].to_numpy() == pytest.approx(probs.max(1).values.numpy())

# ---- bad input

@pytest.mark.parametrize('f', [CalibrationInterpretation.from_learner, temperature])
def test_bad_input(f):
    z,y = softmax_data(20)
    learn = learner(z, y, CrossEntropyLossFlat())
    inputs = DataLoader([(o,) for o in z], bs=4, num_workers=0)
    with pytest.raises(ValueError, match='dl has no targets'): f(learn, dl=inputs)
    empty = DataLoader([], bs=4, num_workers=0)
    with pytest.raises(ValueError, match=r'dl is empty.*`dl=learn.dls.test_dl\(items\)`'): f(learn, dl=empty)
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
    for y,loss in ((z.argmax(1), CrossEntropyLossFlat()), ((z > 0).float(), BCEWithLogitsLossFlat())):
        with pytest.raises(ValueError, match='at least one mistake'): temperature(learner(z, y, loss))

# ---- any axis, votes, losses of all kinds

def test_sequences_have_their_classes_last():
    "(B, L, N), as -1 is documented"
    z = torch.randn(40, 6, 5)*3
    y = (z/2).softmax(-1).view(-1, 5).multinomial(1).view(40, 6)
    y[:, 4:] = -100
    keep = y.flatten() != -100
    rows,of_rows = z.view(-1, 5)[keep],y.flatten()[keep]
    learn,flat = learner(z, y, CrossEntropyLossFlat()),learner(rows, of_rows, CrossEntropyLossFlat())
    check_softmax(CalibrationInterpretation.from_learner(learn).summary().loc['all'], rows, of_rows)
    t = learn.calibrate()
    assert t == pytest.approx(temperature(flat), rel=1e-6)
    assert_close(learn.get_preds()[0], (z/t).softmax(-1))
    class Own: # that does not say its axis
        soft_targets,reduction = True,'mean'
        def __call__(self, z, y): return soft_cross_entropy(z, y, axis=-1)
    assert temperature(learner(z, y, Own())) == pytest.approx(t, rel=1e-6)

@pytest.mark.parametrize('loss', [nn.CrossEntropyLoss(), F.cross_entropy, param(smoothing, id='label_smoothing')])
def test_torchs_losses_have_classes_after_the_items(loss):
    z,y = seg_data(void=-100)
    keep = y.flatten() != -100
    learn = learner(z, y, loss)
    s = CalibrationInterpretation.from_learner(learn).summary().loc['all']
    check_softmax(s, z.movedim(1, -1).reshape(-1, 4)[keep], y.flatten()[keep])
    learn.calibrate(2.)
    assert_close(learn.get_preds()[0], (z/2).softmax(1))

def dirichlet(m=800, n=4, scale=.7): return torch.distributions.Dirichlet(torch.full((n,), scale)).sample((m,))

def test_votes_are_judged_as_they_are():
    votes = dirichlet()
    z = votes.add(.05).log()*2 + torch.randn(800, 4)*.3
    votes[:50] = 0
    learn = learner(z, votes, SoftCrossEntropyLossFlat())
    look = CalibrationInterpretation.from_learner(learn)
    s,z,t = look.summary().loc['all'],z[50:].double(),votes[50:].double()
    p = z.softmax(1)
    conf,pred = p.max(1)
    hit = t.gather(1, pred[:, None])[:, 0]
    assert look.count == 750
    assert s['accuracy'] == pytest.approx((pred == t.argmax(1)).double().mean().item())
    assert s['negative log-likelihood'] == pytest.approx(F.cross_entropy(z, t).item())
    assert s['Brier score'] == pytest.approx((p-t).pow(2).sum(1).mean().item())
    def ece(p, t): return sum(abs((p-t)[(i/15 < p) & (p <= (i+1)/15)].sum().item()) for i in range(15))/len(p)
    assert s['ECE'] == pytest.approx(ece(conf, hit))
    assert s['classwise ECE'] == pytest.approx(np.mean([ece(p[:, k], t[:, k]) for k in range(4)]))
    best = best_temp(lambda u: F.cross_entropy(z/u, t).item())
    assert temperature(learn) == pytest.approx(best, rel=1e-3)
    to_majority = best_temp(lambda u: F.cross_entropy(z/u, t.argmax(1)).item())
    assert abs(to_majority/best-1) > .2 # which is another one
    assert look.losses[:50].eq(0).all()
    assert_close(look.losses[50:].double(), F.cross_entropy(z, t, reduction='none'))

def test_votes_for_labels():
    votes = torch.rand(500, 3)
    z = votes.logit()*2
    learn = learner(z, votes, BCEWithLogitsLossFlat())
    z,t = z.double(),votes.double()
    s = CalibrationInterpretation.from_learner(learn).summary().loc['all']
    assert s['accuracy'] == 1 == ((z > 0) == (t > .5)).double().mean()
    assert s['negative log-likelihood'] == pytest.approx(F.binary_cross_entropy_with_logits(z, t).item())
    assert s['Brier score'] == pytest.approx((z.sigmoid()-t).pow(2).mean().item())
    assert temperature(learn) == pytest.approx(2, rel=1e-3)

def test_pictures_of_votes():
    votes,z = dirichlet(300),torch.randn(300, 4)
    look = CalibrationInterpretation.from_learner(learner(z, votes, SoftCrossEntropyLossFlat()))
    look.plot_confidence(bins=5)
    conf,pred = z.softmax(1).max(1)
    hit = votes.gather(1, pred[:, None])[:, 0].numpy()
    for bars,w in zip(plt.gca().containers, (hit, 1-hit)):
        want = 100*np.histogram(conf, 5, (0, 1), weights=w)[0]/w.sum()
        assert [b.get_height() for b in bars] == pytest.approx(want.tolist(), rel=1e-4)

def test_probabilities_of_an_act_that_is_no_softmax():
    z,y = softmax_data()
    def act(z): return desmooth(z.softmax(1), .1, 5)
    s = CalibrationInterpretation.from_learner(learner(z, y, CrossEntropyLossFlat()), act=act).summary()
    p = act(z.double()).gather(1, y[:, None])
    assert s['negative log-likelihood'].item() == -p.log().mean() # infinite, if one that was clipped is right
    with pytest.raises(ValueError, match='no probabilities'):
        CalibrationInterpretation.from_learner(learner(z, y, CrossEntropyLossFlat()), act=lambda z: z)

# ---- temperature that lasts

@pytest.mark.parametrize('loss,data', [
    (CrossEntropyLossFlat(), softmax_data),
    (nn.CrossEntropyLoss(), softmax_data),
    (nn.BCEWithLogitsLoss(), multi_data),
    param(BCEWithLogitsLossFlat(thresh=.3), multi_data, id='thresh')])
def test_a_temperature_survives_a_labelsmooth_that_comes_later(loss, data):
    learn = learner(*data(), loss)
    learn.calibrate(3.)
    probs,_,decoded = learn.get_preds(with_decoded=True)
    with learn.added_cbs(LabelSmooth()):
        after,_,decoded2 = learn.get_preds(with_decoded=True)
        learn.fit(1, 0.)
        assert_close(learn.get_preds()[0], probs)
    assert_close(after, probs)
    assert decoded.equal(decoded2)
    assert_close(learn.topk(1).prob_1.to_numpy(), probs.max(1).values.double().numpy(), rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('temp', [np.float32(2), np.float64(2), np.int64(2), 2])
def test_calibrate_takes_any_number(temp):
    z,y = softmax_data()
    learn = learner(z, y, CrossEntropyLossFlat())
    assert learn.calibrate(temp) == 2 and type(learn.loss_func.activation.temp) is float
    assert_close(learn.get_preds()[0], (z/2).softmax(1))

# ---- side by side

def test_compare():
    z,y = softmax_data()
    a,b = learner(z, y, CrossEntropyLossFlat()),learner(z/3, y, CrossEntropyLossFlat())
    look = CalibrationInterpretation.from_learner(b)
    table = compare({'hard': a, 'smoothed': look})
    assert list(table) == ['hard', 'smoothed']
    assert table['hard'].equals(CalibrationInterpretation.from_learner(a).summary().loc['all'].rename('hard'))
    assert table['smoothed'].equals(look.summary().loc['all'].rename('smoothed'))
    part = DataLoader(list(zip(z, y))[:100], bs=10, num_workers=0)
    accuracy = (z[:100].argmax(1) == y[:100]).double().mean().item()
    assert compare({'a': a}, dl=part).loc['accuracy', 'a'] == pytest.approx(accuracy)
    with pytest.raises(TypeError, match='expected a dict'): compare([a, b])

observed_row = 'negative log-likelihood of observed labels'
implied_rows = ['implied accuracy on clean labels', 'implied accuracy, from', 'implied accuracy, to']

def noisy_data(share=.3, m=3000, n=5, seed=0):
    "Logits of a model that is right about the clean class; the clean class, and the label, which is wrong evenly"
    torch.manual_seed(seed)
    z = torch.randn(m, n)*3
    clean = z.softmax(1).multinomial(1)[:, 0]
    wrong = torch.rand(m) < share
    return z,clean,torch.where(wrong, (clean + torch.randint(1, n, (m,)))%n, clean)

def forward_learner(z, y, eps=None, mode='forward', loss=None):
    learn = learner(z, y, loss or CrossEntropyLossFlat())
    learn.add_cb(LabelSmooth(eps, mode=mode))
    return learn

def test_forward_is_never_sharpened():
    "Of logits that are too small by 2 a hard learner's temperature is .5, that of a forward learner 1"
    z,clean,y = noisy_data()
    assert temperature(forward_learner(z*2, y, .3)) == pytest.approx(2, abs=.15)
    assert temperature(learner(z/2, clean, CrossEntropyLossFlat())) == pytest.approx(.5, abs=.03)
    assert temperature(forward_learner(z/2, y, .3)) == pytest.approx(1, abs=1e-4)

T = np.array([[.8, .2, 0., 0., 0.], [0., .9, .1, 0., 0.], *np.eye(5)[2:]])
@pytest.mark.parametrize('eps,mode', [(.3, 'forward'), (lambda pct: .3*pct, 'forward'), (None, Forward(T))],
                         ids=['evenly', 'schedule', 'matrix'])
def test_compare_on_noisy_labels(eps, mode):
    z,clean,y = noisy_data()
    if eps is None: y = torch.tensor(T)[clean].multinomial(1)[:, 0]
    learn,hard = forward_learner(z, y, eps, mode),learner(z/2, y, CrossEntropyLossFlat())
    table = compare({'hard': hard, 'forward': learn})
    assert table.forward[observed_row] == pytest.approx(learn.validate()[0], rel=1e-5)
    assert table.forward[observed_row] < table.forward['negative log-likelihood']
    assert table.hard[observed_row] == pytest.approx(table.hard['negative log-likelihood'])
    assert list(table.index[-4:]) == [observed_row, *implied_rows] if eps else table.index[-1] == observed_row
    learn.calibrate(2.) # the probabilities are others now
    assert compare({'a': learn}).a[observed_row] > table.forward[observed_row]

def test_compare_on_missing_labels():
    z = torch.randn(2000, 3)*3
    y = torch.bernoulli(z.sigmoid())*(torch.rand(2000, 3) > .3)
    learn = forward_learner(z, y, (.3, 0.), loss=BCEWithLogitsLossFlat())
    table = compare({'forward': learn})
    assert table.forward[observed_row] == pytest.approx(learn.validate()[0], rel=1e-5)
    assert not set(implied_rows) & set(table.index)

def test_implied_accuracy():
    z,clean,y = noisy_data()
    learn,hard = forward_learner(z, y, .3),learner(z.roll(1, 1), y, CrossEntropyLossFlat())
    table = compare({'hard': hard, 'forward': learn})
    for name,logits in (('hard', z.roll(1, 1)), ('forward', z)): # the noise is that of the labels
        value,lo,hi = table.loc[implied_rows, name]
        assert value == pytest.approx((table[name]['accuracy'] - .3/4)/(.7 - .3/4))
        assert lo < (logits.argmax(1) == clean).float().mean() < hi and hi-lo < .08

def test_coverage_of_the_implied_accuracy():
    held = []
    for seed in range(60):
        z,clean,y = noisy_data(m=400, seed=seed)
        _,lo,hi = _accuracy_behind((z.argmax(1) == y).sum(), 400, .3, 5)
        held.append(lo <= (z.argmax(1) == clean).float().mean() <= hi)
    assert np.mean(held) > .9

def test_compare_takes_the_noise_by_which_the_labels_are_most_likely():
    z,clean,y = noisy_data()
    for eps in ((.1, .3), (.3, .1)):
        table = compare({str(e): forward_learner(z, y, e) for e in eps})
        assert table.loc[implied_rows[0]].nunique() == 1
        assert table.loc[implied_rows[0]].iloc[0] == pytest.approx((table.iloc[0, 0] - .3/4)/(.7 - .3/4))

def test_compare_on_clean_labels_adds_nothing():
    z,clean,y = noisy_data()
    learn = forward_learner(z, clean, .3)
    summary = CalibrationInterpretation.from_learner(learn).summary().loc['all']
    assert compare({'a': learn}).a.equals(summary.rename('a'))

# ---- pictures

@pytest.mark.parametrize('scale', [.1, 1., 8.])
def test_the_legend_of_plot_reliability_covers_no_bar(scale):
    z,y = softmax_data(scale=scale)
    cal(z, y, CrossEntropyLossFlat()).plot_reliability()
    plt.gcf().canvas.draw()
    for ax in plt.gcf().axes:
        legend = ax.get_legend()
        if legend is None: continue
        box = legend.get_window_extent()
        assert not any(box.overlaps(bar.get_window_extent()) for bar in ax.patches if bar.get_height() > 0)
        assert ax.get_window_extent().width >= box.width

def test_the_optimum_is_what_the_smoother_says():
    class Mine(Smoother):
        def __init__(self, best): self.best = best
        def __call__(self, targ, batch): return smooth_labels(targ, batch.task.n)
        def optimum(self, eps, task):
            assert task.n == 5 and task.sigmoid is False
            return self.best
    z,y = softmax_data()
    for best in ((.7, .075), None, (1., 0.)):
        cal(z, y, CrossEntropyLossFlat(), cbs=LabelSmooth(.3, Mine(best))).plot_logit_gap()
        at = [o.get_xdata()[0] for o in plt.gca().lines]
        assert at == (pytest.approx([math.log(.7/.075)]) if best == (.7, .075) else [])
        plt.close('all')

def test_plot_logit_gap_of_masked_logits():
    z,y = multi_data()
    z[0, 0],y[0, 0] = -math.inf,0
    cal(z, y, BCEWithLogitsLossFlat()).plot_logit_gap()
    assert sum(p.get_height() for p in plt.gca().patches) == pytest.approx(100)

@pytest.mark.parametrize('sigmoid', [False, True])
def test_temperature_through_the_noise(sigmoid):
    "30% of the labels are wrong: only `forward` finds the temperature of the clean probabilities"
    if sigmoid:
        z,clean = torch.randn(3000, 2)*4,None
        clean = torch.bernoulli((z/2).sigmoid())
        y = torch.where(torch.rand(clean.shape) < .3, 1-clean, clean)
        loss = BCEWithLogitsLossFlat()
    else:
        z,clean = softmax_data(4000)
        y = torch.where(torch.rand(4000) < .3, (clean+torch.randint(1, 5, (4000,)))%5, clean)
        loss = CrossEntropyLossFlat()
    noisy,plain = (learner(z, y, loss, cbs=cbs) for cbs in (LabelSmooth(.3, 'forward'), None))
    assert noisy.calibrate() == pytest.approx(2, rel=.15) # as the clean labels were drawn
    assert plain.calibrate() > 3
    if sigmoid: return
    T = torch.full((5, 5), .3/4).fill_diagonal_(.7)
    by_matrix = learner(z, y, loss, cbs=LabelSmooth(mode=Forward(T)))
    assert temperature(by_matrix) == pytest.approx(temperature(noisy), rel=1e-4)

# A temperature that is not to be trusted is an error

def test_a_temperature_that_runs_away_is_refused():
    z,y = softmax_data()
    for targ in ((y+1)%5, z.argmin(1)): # shifted, inverted
        learn = learner(z, targ, CrossEntropyLossFlat())
        act = learn.loss_func.activation
        with pytest.raises(ValueError, match='rises to 100'): learn.calibrate()
        assert learn.loss_func.activation == act
    alike = learner(torch.zeros(50, 5), y[:50], CrossEntropyLossFlat())
    with pytest.raises(ValueError, match='same logit'): temperature(alike)
    with pytest.raises(ValueError, match='falls to 0.01'): temperature(learner(z*1e-6, y, CrossEntropyLossFlat()))

def test_the_temperature_is_that_of_torchs_optimizer():
    z,y = softmax_data()
    log_t = torch.zeros((), dtype=torch.double, requires_grad=True)
    opt = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn='strong_wolfe', tolerance_change=1e-12)
    def nll():
        opt.zero_grad()
        loss = F.cross_entropy(z.double()/log_t.exp(), y)
        loss.backward()
        return loss
    opt.step(nll)
    assert temperature(learner(z, y, CrossEntropyLossFlat())) == pytest.approx(log_t.exp().item(), rel=1e-5)

def test_a_temperature_through_the_noise():
    "The labels are wrong, the temperature is that of the clean classes"
    z = torch.randn(10_000, 4)*2
    clean = torch.distributions.Categorical(logits=z).sample()
    T = torch.eye(4)*.6+.1
    noisy = torch.distributions.Categorical(probs=T[clean]).sample()
    for cb in (lambda: LabelSmooth(mode=Forward(T)), lambda: LabelSmooth(.3, 'forward')):
        assert temperature(learner(2*z, noisy, CrossEntropyLossFlat(), cbs=cb())) == pytest.approx(2, abs=.15)
        pixels,mask = 2*z.view(50, 200, 4).transpose(1, 2),noisy.view(50, 200)
        assert temperature(learner(pixels, mask, CrossEntropyLossFlat(axis=1), cbs=cb())) == pytest.approx(2, abs=.15)
    s = torch.randn(10_000, 2)*2
    truth = torch.bernoulli(s.sigmoid())
    seen = truth*(torch.rand_like(truth) > .4)
    found = temperature(learner(3*s, seen, BCEWithLogitsLossFlat(), cbs=LabelSmooth((.4, 0.), 'forward')))
    assert found == pytest.approx(3, abs=.2)
