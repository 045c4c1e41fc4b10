"Calibration errors and distances of plain tensors, and as fastai metrics, each against an independent one"
import sklearn.metrics as skm, torchmetrics.functional.classification as tm
import pytest
from fastai.basics import *
from fastai.callback.progress import CSVLogger
from fastai_labelsmooth.all import *
from fastai_labelsmooth.interpret.metrics import adaptive_calibration_error
from helpers import digits_learner, logits_learner as learner, multi_data, seg_data, softmax_data

def test_bins_by_hand():
    "Bins are (lo, hi], and a perfect 0 belongs to the first"
    p = torch.tensor([0., .25, .5, .5001, 1.], dtype=torch.double)[:, None]
    y = torch.tensor([0, 1, 1, 0, 1])
    bins = bin_sums(p, y[:, None], 4)
    assert bins.count[0].tolist() == [2, 1, 1, 1] and bins.hit[0].tolist() == [1, 1, 0, 1]
    assert bins.conf[0].tolist() == pytest.approx([.25, .5, .5001, 1.])
    assert calibration_error(bins).item() == pytest.approx((.75+.5+.5001+0)/5)
    adaptive = adaptive_calibration_error(p[:4, 0], torch.tensor([0, 1, 1, 1]), 2)
    assert adaptive == pytest.approx((abs(.25-1)+abs(1.0001-2))/4)
    twice = bins+bins
    assert twice.count[0].tolist() == [4, 2, 2, 2] and calibration_error(twice).equal(calibration_error(bins))

@pytest.mark.parametrize('eps', [None, .2])
def test_metrics(eps):
    learn = digits_learner(LabelSmooth(eps) if eps else None)
    learn.metrics = L(ECE(), BrierScore())
    learn.fit(1)
    got = learn.recorder.values[-1][2:]
    probs,y = learn.get_preds()
    assert learn.recorder.metric_names[3:5] == ['ece', 'brier_score']
    assert got[0] == pytest.approx(tm.multiclass_calibration_error(probs, y, 10, n_bins=15).item(), rel=1e-4)
    brier = skm.brier_score_loss(y, probs.double().numpy(), labels=range(10), scale_by_half=False)
    assert got[1] == pytest.approx(brier, rel=1e-4)

def test_metrics_of_segmentation():
    z,y = seg_data()
    learn = learner(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255), bs=2)
    learn.metrics = L(ECE(axis=1, n_bins=7, ignore_index=255), BrierScore(axis=1, ignore_index=255))
    _,ece,brier = learn.validate()
    want = tm.multiclass_calibration_error(z.softmax(1), y, 4, n_bins=7, ignore_index=255).item()
    assert ece == pytest.approx(want, rel=1e-4)
    keep = y.flatten() != 255
    p = z.softmax(1).movedim(1, -1).reshape(-1, 4)[keep]
    assert brier == pytest.approx((p-F.one_hot(y.flatten()[keep], 4)).pow(2).sum(1).mean().item(), rel=1e-4)

def test_csv_logger(tmp_path):
    learn = digits_learner([LabelSmooth(.1), CSVLogger()], path=tmp_path)
    learn.metrics = L(ECE(), BrierScore())
    learn.fit(2)
    log = learn.csv_logger.read_log()
    assert list(log.columns) == ['epoch', 'train_loss', 'valid_loss', 'ece', 'brier_score', 'time'] and len(log) == 2
    assert log['ece'].iloc[-1] == pytest.approx(learn.recorder.values[-1][2])

@pytest.mark.parametrize('dtype', [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_metrics_of_short_integers(dtype):
    "fastai's tabular data comes as int8, in which 156 and -100 are one number"
    z = torch.randn(60, 200 if dtype != torch.int8 else 100)
    y = torch.randint(0, z.shape[1], (60,))
    if dtype == torch.uint8: y[:30] = 156
    learn = learner(z, y.to(dtype), CrossEntropyLossFlat())
    learn.loss_func = lambda p,t: F.cross_entropy(p, t.long()) # torch's own takes no such targets
    learn.metrics = L(ECE(), BrierScore())
    _,ece,brier = learn.validate()
    p = z.double().softmax(1)
    assert ece == pytest.approx(tm.multiclass_calibration_error(p, y, z.shape[1], n_bins=15).item(), rel=1e-4)
    assert brier == pytest.approx((p-F.one_hot(y, z.shape[1])).pow(2).sum(1).mean().item(), rel=1e-5)

@pytest.mark.parametrize('loss', [BCEWithLogitsLossFlat, nn.BCEWithLogitsLoss])
def test_metrics_of_a_sigmoid_loss(loss):
    z,y = multi_data()
    learn = learner(z, y, loss())
    learn.metrics = L(ECE(), BrierScore())
    _,ece,brier = learn.validate()
    p = z.double().sigmoid()
    want = tm.binary_calibration_error(p.flatten(), y.flatten().long(), n_bins=15).item()
    assert ece == pytest.approx(want, rel=1e-4)
    assert brier == pytest.approx(skm.brier_score_loss(y.flatten(), p.flatten()), rel=1e-5)

def test_metrics_ask_the_loss_for_the_axis_and_what_to_ignore():
    z,y = seg_data()
    learn = learner(z, y, CrossEntropyLossFlat(axis=1, ignore_index=255), bs=2)
    learn.metrics = L(ECE(), BrierScore(), ECE(axis=1, ignore_index=255), BrierScore(axis=1, ignore_index=255))
    _,*got = learn.validate()
    assert got[:2] == got[2:]
    z,y = torch.randn(20, 7, 3),torch.randint(0, 3, (20, 7))
    learn = learner(z, y, CrossEntropyLossFlat())
    learn.metrics = L(BrierScore())
    assert learn.validate()[1] == pytest.approx((z.softmax(-1)-F.one_hot(y)).pow(2).sum(-1).mean().item(), rel=1e-5)

def test_metrics_of_votes():
    z,_ = softmax_data(200)
    votes = torch.distributions.Dirichlet(torch.ones(5)).sample((200,))
    votes[:20] = 0 # ignored
    learn = learner(z, votes, SoftCrossEntropyLossFlat())
    learn.metrics = L(ECE(), BrierScore())
    _,ece,brier = learn.validate()
    p,t = z[20:].double().softmax(1),votes[20:]
    conf,pred = p.max(1)
    hit = t.gather(1, pred[:, None])[:, 0]
    bins = [(i/15 < conf) & (conf <= (i+1)/15) for i in range(15)]
    assert ece == pytest.approx(sum(abs((conf-hit)[b].sum().item()) for b in bins)/180, rel=1e-5)
    assert brier == pytest.approx((p-t).pow(2).sum(1).mean().item(), rel=1e-5)

def test_a_metric_keeps_no_predictions_and_starts_anew():
    z,y = softmax_data()
    learn = learner(z, y, CrossEntropyLossFlat())
    learn.metrics = L(ECE(n_bins=7))
    first = learn.validate()
    assert learn.validate() == first
    assert sum(o.numel() for o in learn.metrics[0].bins) == 21

def test_a_diverged_model_does_not_stop_the_training():
    z,y = softmax_data(20)
    learn = learner(z*math.nan, y, CrossEntropyLossFlat())
    learn.metrics = L(ECE(), BrierScore())
    assert all(map(math.isnan, learn.validate()))

def test_a_metric_can_ignore_what_the_loss_does_not():
    z,y = seg_data(void=-100)
    learn = learner(z, y.clamp(min=0), CrossEntropyLossFlat(axis=1))
    learn.metrics = L(BrierScore(ignore_index=2))
    keep = y.flatten().clamp(min=0) != 2
    p,t = z.softmax(1).movedim(1, -1).reshape(-1, 4)[keep],F.one_hot(y.clamp(min=0), 4).reshape(-1, 4)[keep]
    assert learn.validate()[1] == pytest.approx((p-t).pow(2).sum(1).mean().item(), rel=1e-5)

@pytest.mark.parametrize('axis', [1, 2, -1])
def test_a_metric_can_be_told_the_class_axis(axis):
    "As of a loss of one's own that says nothing"
    z,y = torch.randn(8, 4, 4, 4),torch.randint(0, 4, (8, 4, 4))
    learn = learner(z.movedim(-1, axis), y, lambda pred, targ: pred.mean())
    learn.metrics = L(BrierScore(axis=axis))
    assert learn.validate()[1] == pytest.approx((z.softmax(-1)-F.one_hot(y, 4)).pow(2).sum(-1).mean().item(), rel=1e-5)
