"Targets as pictures, before training: what they show, and that looking changes nothing"
import random, sys, types
import matplotlib.pyplot as plt
import pytest
from torch.testing import assert_close
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from helpers import digits_learner, logits_learner as learner, multi_data, seg_data, weights

@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close('all')

def heights(ax): return [[o.get_height() for o in c] for c in ax.containers]

@pytest.mark.parametrize('mode,on,off', [('exact', .8, .05), ('paper', .84, .04)])
def test_plot_targets(mode, on, off):
    plot_targets(.2, 5, mode, y=2)
    hard,soft = heights(plt.gca())
    assert hard == [0, 0, 1, 0, 0]
    assert soft == pytest.approx([off, off, on, off, off])

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
    learn = learner(torch.rand(3, 2, 6, 6), flat, CrossEntropyLossFlat(axis=1), cbs=LabelSmooth(.1))
    learn.label_smooth.show_batch(max_n=1)
    assert np.argwhere(~plt.gcf().axes[1].images[1].get_array().mask).tolist() == [[i, 2] for i in range(6)]

def test_show_batch_of_a_binary_mask():
    y = torch.zeros(3, 1, 6, 6)
    y[:, :, 2:] = 1
    learn = learner(torch.randn(3, 1, 6, 6), y, BCEWithLogitsLossFlat(), cbs=LabelSmooth((.1, .02)))
    learn.label_smooth.show_batch(max_n=1)
    assert plt.gcf().axes[1].get_title() == '1 becomes 0.9, 0 becomes 0.02'

def test_show_batch_of_a_smoother_that_learns():
    class Learns(Smoother):
        seen = 0
        def __call__(self, targ, batch): return batch.pred.softmax(batch.task.axis)
        def update(self, targ, batch): self.seen += 1
    smoother = Learns()
    learn = digits_learner(LabelSmooth(mode=smoother))
    learn.label_smooth.show_batch(max_n=1)
    assert smoother.seen == 0 and sum(heights(plt.gcf().axes[1])[1]) == pytest.approx(1)

def test_show_batch_leaves_the_learner_as_it_was():
    def train(show):
        learn = digits_learner(LabelSmooth(.1))
        learn.model = nn.Sequential(nn.BatchNorm1d(64), learn.model, nn.Dropout(.1))
        if show:
            learn.model[2].eval()
            before = {k: v.clone() for k,v in learn.model.state_dict().items()}
            states = torch.get_rng_state(),random.getstate()
            learn.label_smooth.show_batch(max_n=1)
            assert all(v.equal(before[k]) for k,v in learn.model.state_dict().items())
            assert learn.model[0].training and not learn.model[2].training
            assert torch.get_rng_state().equal(states[0]) and random.getstate() == states[1]
        learn.fit(1)
        return weights(learn)
    assert_close(train(False), train(True), rtol=0, atol=0)

def test_show_batch_of_tabular_data():
    df = pd.DataFrame({'x': np.random.randn(16), 'c': ['u', 'v']*8, 'y': ['a', 'b', 'b', 'b']*4})
    from fastai.tabular.all import TabularDataLoaders, tabular_learner, Categorify, Normalize
    dls = TabularDataLoaders.from_df(df, procs=[Categorify, Normalize], cat_names=['c'], cont_names=['x'], y_names='y',
                                     y_block=CategoryBlock(), bs=4, num_workers=0)
    learn = tabular_learner(dls, n_out=2, loss_func=CrossEntropyLossFlat(), cbs=LabelSmooth(.1))
    learn.label_smooth.show_batch(2)
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
    monkeypatch.setitem(sys.modules, 'wandb', types.ModuleType('wandb')) # not installed; fastai only imports it
    import fastai.callback.wandb # patches `gather_args`
    for cb in (LabelSmooth(.2, 'paper'), LabelSmooth(SchedCos(.2, 0.))):
        args = digits_learner(cb).gather_args()
        assert args['LabelSmooth']['eps'] == cb.eps and args['LabelSmooth']['mode'] == cb.mode

@pytest.mark.parametrize('sigmoid', [False, True])
def test_show_batch_of_volumes(sigmoid):
    "The middle slice"
    x = torch.rand(4, 2, 5, 8, 9)
    y = torch.zeros(4, *([2] if sigmoid else []), 5, 8, 9).to(torch.float if sigmoid else torch.long)
    y[..., 2, 3:, :] = 1
    y[..., 4, :, :] = 0 if sigmoid else 255
    loss = BCEWithLogitsLossFlat() if sigmoid else CrossEntropyLossFlat(axis=1, ignore_index=255)
    learner(x, y, loss, bs=4, cbs=LabelSmooth(.1)).label_smooth.show_batch(max_n=3)
    axs = plt.gcf().axes
    assert len(axs) == 6
    for item,top,bottom in zip(x, axs[:3], axs[3:]):
        assert np.allclose(top.images[0].get_array(), item[0, 2])
        assert bottom.get_title() == ('1 becomes 0.9, 0 becomes 0.1' if sigmoid else 'true class 0.9,\neach other 0.1')
        mask = bottom.images[0].get_array()
        assert not np.ma.getmaskarray(mask).any() and (mask.data[3:] == 1).all() and (mask.data[:3] == 0).all()

def test_show_batch_of_a_labelsmooth_added_later_and_of_another_target():
    z = torch.randn(8, 3)
    items = [(o, torch.tensor(7), torch.tensor(i%3)) for i,o in enumerate(z)]
    dls = DataLoaders(*[DataLoader(items, bs=8, num_workers=0) for _ in range(2)])
    dls.n_inp = 1
    for dl in dls.loaders: dl.n_inp = 1
    learn = learner(z, torch.zeros(8).long(), CrossEntropyLossFlat())
    learn.dls = dls
    learn.add_cb(LabelSmooth(.3, targ_idx=1))
    learn.label_smooth.show_batch(max_n=3)
    soft = np.array([heights(ax)[1] for ax in plt.gcf().axes[3:]])
    assert soft == pytest.approx(np.where(np.eye(3), .7, .15))

def test_show_batch_asks_a_smoother_once_as_it_is():
    "No copy of it, no learner that is none"
    class Counts(Smoother):
        calls = []
        def __deepcopy__(self, memo): raise AssertionError('a smoother was copied')
        def __call__(self, targ, batch):
            self.calls.append((len(targ), batch.pred.shape, len(batch.xb), batch.task))
            return smooth_labels(targ, batch.task.n, batch.eps)
    learn = digits_learner(LabelSmooth(mode=Counts()))
    learn.label_smooth.show_batch(max_n=2)
    assert Counts.calls == [(64, (64, 10), 1, Task(10, 1, -100, False))]

def test_plot_targets_of_a_smoother():
    plot_targets(.2, 4, Uniform('paper'), y=1)
    assert heights(plt.gca())[1] == pytest.approx([.05, .85, .05, .05])
    with pytest.raises(ValueError, match='eps=0.8'): plot_targets(.8, 4)

def test_show_batch_goes_through_the_callbacks():
    "One of them may unpack what the model gives"
    class Dict(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
        def forward(self, x): return {'logits': self.model(x)}
    class Unpack(Callback):
        def after_pred(self): self.learn.pred = self.pred['logits']
    learn = digits_learner([LabelSmooth(.1), Unpack()])
    learn.model = Dict(learn.model)
    learn.label_smooth.show_batch(max_n=2)
    for hard,soft in map(heights, plt.gcf().axes[2:]): assert soft == pytest.approx([.9 if o else .1/9 for o in hard])

def test_show_batch_of_tied_votes():
    z = torch.randn(8, 4)
    learner(z, torch.full((8, 4), .25), VotesLossFlat(), cbs=LabelSmooth(.1)).label_smooth.show_batch(2)
    assert 'each other none' in plt.gcf().axes[2].get_title()
