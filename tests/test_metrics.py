"Calibration errors and distances of plain tensors, and as fastai metrics, each beside an independent one"
import sklearn.metrics as skm, torchmetrics.functional.classification as tm
import pytest
from fastai.basics import *
from fastai.callback.progress import CSVLogger
from fastai_labelsmooth.all import *
from conftest import digits_learner, logits_learner as learner, multi_data, seg_data, softmax_data

def test_bins_by_hand():
    "Bins are (lo, hi], and a perfect 0 belongs to the first"
    p = torch.tensor([0., .25, .5, .5001, 1.], dtype=torch.double)[:, None]
    n,sp,sy = _bin_sums(p, torch.tensor([0, 1, 1, 0, 1])[:, None], 4)[:, 0]
    assert n.tolist() == [2, 1, 1, 1] and sy.tolist() == [1, 1, 0, 1]
    assert sp.tolist() == pytest.approx([.25, .5, .5001, 1.])
    assert _ece(torch.stack([n, sp, sy])).item() == pytest.approx((.75+.5+.5001+0)/5)
    assert _adaptive_ece(p[:4, 0], torch.tensor([0, 1, 1, 1]), 2) == pytest.approx((abs(.25-1)+abs(1.0001-2))/4)


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

def test_csv_logger(tmp_path):
    learn = digits_learner([LabelSmooth(.1), CSVLogger()], path=tmp_path)
    learn.metrics = L(ECE(), BrierScore())
    learn.fit(2)
    log = learn.csv_logger.read_log()
    assert list(log.columns) == ['epoch', 'train_loss', 'valid_loss', 'ece', 'brier_score', 'time'] and len(log) == 2
    assert log['ece'].iloc[-1] == pytest.approx(learn.recorder.values[-1][2])
