"Targets as pictures, before training"
import random, sys, types
import matplotlib.pyplot as plt
import pytest
from torch.testing import assert_close
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from conftest import digits_learner, logits_learner as learner, multi_data, seg_data

@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close('all')

@pytest.mark.parametrize('mode', ['exact', 'paper'])
def test_plot_targets(mode):
    plot_targets(.2, 5, mode, y=2)
    hard,soft = plt.gca().containers
    on,off = {'exact': (.8, .05), 'paper': (.84, .04)}[mode]
    assert [o.get_height() for o in hard] == [0, 0, 1, 0, 0]
    assert [o.get_height() for o in soft] == pytest.approx([off, off, on, off, off])


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


def test_gather_args(monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', types.ModuleType('wandb')) # not installed; its fastai module only needs the import
    import fastai.callback.wandb # patches `gather_args`
    for cb in (LabelSmooth(.2, 'paper'), LabelSmooth(SchedCos(.2, 0.))):
        args = digits_learner(cb).gather_args()
        assert args['LabelSmooth']['eps'] == cb.eps and args['LabelSmooth']['mode'] == cb.mode
