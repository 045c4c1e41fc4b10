"A Learner without its LabelSmooth can be exported for machines that do not have this package"
import zipfile
from fastai.tabular.all import *
from fastai_labelsmooth.all import *
from helpers import quiet

def exported(learn, path):
    learn.export(path)
    with zipfile.ZipFile(path) as f: return any(b'fastai_labelsmooth' in f.read(name) for name in f.namelist())

def test_what_readme_says_takes_the_package_off(tmp_path):
    df = pd.DataFrame(dict(x=np.linspace(-1, 1, 64), y=['a', 'b']*32))
    dls = TabularDataLoaders.from_df(df, cont_names=['x'], y_names='y', procs=[], bs=16, seed=0)
    learn = quiet(tabular_learner(dls, layers=[4], cbs=LabelSmooth(.1), path=tmp_path))
    learn.fit(1)
    assert exported(learn, tmp_path/'with.pkl')
    expected = learn.get_preds()[0]
    learn.remove_cb(LabelSmooth)
    learn.loss_func = CrossEntropyLossFlat()
    assert not exported(learn, tmp_path/'without.pkl')
    assert torch.equal(learn.get_preds()[0], expected)
