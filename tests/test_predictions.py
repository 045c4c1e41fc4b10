"The best predictions by name"
import pytest
from fastai.basics import *
from fastai_labelsmooth.all import *
from conftest import logits_learner as learner, multi_data, seg_data, softmax_data

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
