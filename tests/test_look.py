"`show_issues` shows each kind of item and what is said of its label; `IssuesCleaner` makes a list that `relabel` takes"
import io, sys
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch
import matplotlib.pyplot as plt
from PIL import Image
from torch import nn, tensor
from fastai.basics import *
from fastai.data.all import CategoryBlock, ColReader, DataBlock, IndexSplitter, TransformBlock
from fastai.tabular.all import Categorify, Normalize, TabularDataLoaders
from fastai.text.all import TextDataLoaders
from fastai.vision.all import (ImageBlock, ImageDataLoaders, IntToFloatTensor, MaskBlock, MultiCategoryBlock, PILImage,
                               PILImageBW, aug_transforms)
from fastai_labelsmooth.all import *
from fastai_labelsmooth.wrong_labels import look
from fastai_labelsmooth.wrong_labels.refit import items_of, labels_of
from helpers import digits_learner, quiet

pytestmark = pytest.mark.filterwarnings('ignore')
classes = ['cat', 'cow', 'dog']

@pytest.fixture(autouse=True)
def _no_figures():
    plt.close('all')
    yield
    plt.close('all')

@pytest.fixture
def table(monkeypatch):
    "The table that was shown last"
    res = SimpleNamespace(df=None)
    monkeypatch.setattr(look, 'display_df', lambda df: setattr(res, 'df', df))
    return res

def pictures():
    "What each picture that was drawn shows: its title, and the arrays on it"
    axs = [ax for i in plt.get_fignums() for ax in plt.figure(i).axes if ax.get_title()]
    return [(ax.get_title().replace('\n', ' '), [np.asarray(o.get_array()) for o in ax.images]) for ax in axs]

def titles(): return [o for o,_ in pictures()]

def ranked(dls, loss=None, wrong=(), n=3, axis=1):
    "`label_issues` of all items, by predictions that doubt some of them: `wrong` has indices into the targets"
    loss = CrossEntropyLossFlat() if loss is None else loss
    learn = quiet(Learner(dls, nn.Linear(1, 1), loss))
    y = labels_of(learn, items_of(dls.train))
    y = y.flatten() if y.ndim == 2 and y.shape[1] == 1 else y
    guess = y.clone() if isinstance(loss, BCEWithLogitsLossFlat) else y.long().clone()
    for i in wrong: guess[i] = 1-guess[i] if isinstance(loss, BCEWithLogitsLossFlat) else (guess[i]+1) % n
    if isinstance(loss, BCEWithLogitsLossFlat): p = guess*.96+.02
    else: p = (F.one_hot(guess, n)*.94+.02).movedim(-1, axis)
    return learn.label_issues(preds=p.float(), thresh=0)

def source(dls, i): return dls.train_ds.items[i]

# Images

def picture(i, size=(12, 8)): return np.full((*size, 3), 3*i, dtype=np.uint8)

def files(path, n=40, **kwargs):
    "Images in the folders of their classes; the colour of each says which one it is"
    for i in range(n):
        file = path/classes[i%3]/f'{i:02}.png'
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(picture(i)).save(file)
    return ImageDataLoaders.from_path_func(path, in_order(path), lambda o: o.parent.name, valid_pct=.2, seed=0, bs=8,
                                           num_workers=0, **kwargs)

def in_order(path): return sorted(path.rglob('*.png'), key=number)

def number(file): return int(Path(file).stem)

def test_image_files(tmp_path):
    dls = files(tmp_path)
    issues = ranked(dls, wrong=[2, 5])
    assert set(issues.source[:2]) == {source(dls, 2), source(dls, 5)}
    show_issues(dls, issues, k=5)
    shown = pictures()
    assert len(shown) == 5
    for (title,(im,)),row in zip(shown, issues.itertuples()):
        assert title.startswith(f'{row.source.parent.name} → {row.likely}, ') and row.likely != row.label
        assert (im == picture(number(row.source))).all()
    for (title,_),p in zip(shown, issues.prob_wrong): assert title.endswith('>99%' if p > .995 else f'{p:.0%}')

def test_a_probability_is_never_rounded_to_certain(tmp_path):
    dls = files(tmp_path)
    some = [source(dls, i) for i in range(3)]
    issues = pd.DataFrame(dict(source=some, label='cat', likely='dog', prob_wrong=[1., .9949, .5]))
    show_issues(dls, issues)
    assert titles() == ['cat → dog, >99%', 'cat → dog, 99%', 'cat → dog, 50%']

def test_images_are_shown_without_augmentation(tmp_path):
    files(tmp_path)
    src = in_order(tmp_path)
    class Brighter(Transform):
        split_idx = 0
        def encodes(self, x:PILImage): return type(x).create(np.array(x)+random.randint(1, 9))
    def draw(x):
        random.random()
        return x
    block = TransformBlock([PILImage.create, Brighter(), draw], IntToFloatTensor)
    dls = DataBlock((block, CategoryBlock), get_y=lambda o: o.parent.name, splitter=IndexSplitter([0, 1]),
                    batch_tfms=aug_transforms()).dataloaders(src, bs=4, num_workers=0)
    assert (np.array(dls.train_ds[0][0]) != picture(2)).all()
    issues,before = ranked(dls, wrong=[0]),random.getstate()
    show_issues(dls, issues, k=3)
    assert random.getstate() == before
    for (_,(im,)),file in zip(pictures(), issues.source, strict=False): assert (im == picture(number(file))).all()

def test_validation_items_are_shown_from_there(tmp_path):
    dls = files(tmp_path)
    some = [*dls.valid_ds.items[:2], source(dls, 0)]
    show_issues(dls, pd.DataFrame(dict(source=some, label='cat', likely='dog')))
    assert [im[0, 0, 0]/3 for _,(im,) in pictures()] == list(map(number, some)) and titles() == ['cat → dog']*3

def test_a_list_from_a_file(tmp_path):
    dls = files(tmp_path)
    issues = ranked(dls, wrong=[2])
    saved = pd.read_csv(io.StringIO(issues.to_csv()))
    assert isinstance(saved.source[0], str)
    show_issues(dls, issues, k=6)
    expected = pictures()
    plt.close('all')
    show_issues(dls, saved, k=6)
    for (a,(im,)),(b,(same,)) in zip(expected, pictures(), strict=True): assert a == b and (im == same).all()

def test_fixes_and_relabelled_data_are_shown(tmp_path):
    dls = files(tmp_path)
    some = [source(dls, i) for i in range(2)]
    fixes = pd.DataFrame(dict(source=some, label='cat', fix=['dog', None]))
    show_issues(dls, fixes)
    assert titles() == ['cat → dog', 'cat → left out']
    show_issues(relabel(dls, fixes), fixes[:1])
    assert titles()[2:] == ['cat → dog']

def test_grey_images_are_grey(tmp_path):
    dls = files(tmp_path, img_cls=PILImageBW)
    show_issues(dls, ranked(dls), k=1)
    im, = plt.gcf().axes[0].images
    assert im.get_cmap().name == 'gray' and im.get_array().ndim == 2

plain = {
    'colour': ((3, 6, 5), (6, 5, 3)),
    'grey': ((1, 6, 5), (6, 5)),
    'no channel': ((6, 5), (6, 5)),
    'two channels': ((2, 6, 5), (6, 5)),
}

@pytest.mark.parametrize('shape,drawn', list(plain.values()), ids=list(plain))
@pytest.mark.parametrize('as_array', [False, True], ids=['tensor', 'array'])
def test_plain_tensors(shape, drawn, as_array):
    x = torch.rand(30, *shape)
    items = [(o.numpy() if as_array else o, i%3) for i,o in enumerate(x)]
    dls = DataLoaders(*[DataLoader(items, bs=8, num_workers=0) for _ in range(2)])
    issues = ranked(dls, wrong=[4])
    show_issues(dls, issues, k=2)
    (title,(im,)),_ = pictures()
    assert title.startswith('1 → 2, ') and im.shape == drawn
    want = x[4].movedim(0, -1) if x.ndim == 4 else x[4]
    assert np.allclose(im, want.reshape(drawn) if shape[0] != 2 else x[4, 0])

def test_vectors_are_lines():
    dls = digits_learner().dls
    show_issues(dls, pd.DataFrame(dict(source=[5], label=[0], likely=[1], prob_wrong=[.9])))
    line, = plt.gcf().axes[0].lines
    assert np.allclose(line.get_ydata(), dls.train_ds[5][0]) and titles() == ['0 → 1, 90%']

# Several labels

def several(path, n=40):
    files(path, n)
    df = pd.DataFrame(dict(file=list(map(str, in_order(path))), a=[0, 1]*(n//2), b=[0, 0, 1, 1]*(n//4)))
    df = df.sample(frac=1, random_state=0)
    block = DataBlock((ImageBlock, MultiCategoryBlock(encoded=True, vocab=['a', 'b'])), get_x=ColReader('file'),
                      get_y=ColReader(['a', 'b']), splitter=IndexSplitter(range(8)))
    return df,block.dataloaders(df, bs=8, num_workers=0)

def test_several_labels(tmp_path):
    df,dls = several(tmp_path)
    issues = ranked(dls, BCEWithLogitsLossFlat(), wrong=[(2, 0), (2, 1), (7, 1)])
    show_issues(dls, issues, k=3)
    rows = list(dls.train_ds.items.index)
    want = [(rows[i], name) for i,name in [(2, 'a'), (2, 'b'), (7, 'b')]]
    assert {(o.source, o.name) for o in issues[:3].itertuples()} == set(want)
    for (title,(im,)),row in zip(pictures(), issues.itertuples()):
        assert title.startswith(f'{row.name}: {row.label} → {1-row.label}, ')
        assert row.label == df.loc[row.source, row.name]
        assert (im == picture(number(df.file[row.source]))).all()

# Masks

def masked(n=24, codes=('sky', 'road', 'car'), void=False):
    "Images with masks; in one of their corners a class"
    def mask(i):
        res = np.zeros((8, 8), dtype=np.uint8)
        res[:4, :4] = 1+i%2
        if void: res[7] = 255
        return res
    block = DataBlock((ImageBlock, MaskBlock(None if codes is None else list(codes))), get_x=picture_of, get_y=mask,
                      splitter=IndexSplitter([0, 1]))
    return block.dataloaders(list(range(n)), bs=4, num_workers=0),mask

def picture_of(i): return picture(i, (8, 8))

mask_loss = CrossEntropyLossFlat(axis=1, ignore_index=255)

def of_masks(dls, doubt):
    "As `ranked`; void is predicted as anything else"
    learn = quiet(Learner(dls, nn.Linear(1, 1), mask_loss))
    y = labels_of(learn, items_of(dls.train))
    guess = torch.where(y == 255, 0, y)
    for i in doubt: guess[i] = (guess[i]+1) % 3
    return learn.label_issues(preds=(F.one_hot(guess, 3)*.94+.02).movedim(-1, 1).float(), thresh=0)

@pytest.mark.parametrize('void', [False, True], ids=['all labelled', 'some void'])
def test_masks(void):
    dls,mask = masked(void=void)
    i = source(dls, 3)
    issues = of_masks(dls, [(3, slice(0, 2), slice(0, 4)), (6, slice(4, 6), slice(0, 2))])
    show_issues(dls, issues[issues.in_doubt > 0])
    n = 64-8*void
    (a,(im,drawn)),(b,_) = pictures()
    assert a == f"{8/n:.0%} in doubt: {'car → sky' if i%2 else 'road → car'}"
    assert b == f'{4/n:.0%} in doubt: sky → road'
    assert (im == picture_of(i)).all()
    drawn = np.ma.masked_invalid(drawn)
    assert (drawn.mask == (mask(i) == 255)).all() and (drawn.compressed() == mask(i)[mask(i) != 255]).all()
    over = plt.gcf().axes[0].images[1]
    assert over.get_alpha() == .5 and over.get_clim() == (0, 3)

def test_masks_without_names():
    dls,_ = masked(codes=None)
    issues = of_masks(dls, [(3, slice(0, 2), slice(0, 4))])
    show_issues(dls, issues, k=2)
    c = 1+source(dls, 3)%2
    assert titles() == [f'12% in doubt: {c} → {(c+1)%3}', '0% in doubt'] # whole numbers, though others have none

def test_plain_masks():
    items = [(torch.rand(3, 8, 8), (torch.arange(64).view(8, 8)+i)%3) for i in range(20)]
    dls = DataLoaders(*[DataLoader(items, bs=4, num_workers=0) for _ in range(2)])
    show_issues(dls, of_masks(dls, [(3, slice(0, 2))]), k=1)
    (_,(im,mask)), = pictures()
    assert np.allclose(im, items[3][0].movedim(0, -1)) and (mask == items[3][1].numpy()).all()

# Texts and tables

seven = 'alpha beta gamma delta epsilon zeta eta'.split()

def words(n=40):
    text = [f'{seven[i%7]} {seven[i//7]} '+'good film '*40 for i in range(n)]
    df = pd.DataFrame(dict(text=text, label=[classes[i%3] for i in range(n)]), index=[f'r{i}' for i in range(n)])
    return df.sample(frac=1, random_state=0)

def test_texts(table):
    df = words()
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', valid_pct=.2, seed=0, bs=8)
    issues = ranked(dls, wrong=[2, 5])
    show_issues(dls, issues, k=4)
    assert list(table.df) == ['text', 'label', 'likely', 'prob_wrong']
    assert list(table.df.index) == list(issues.source[:4])
    assert set(table.df.index[:2]) == {dls.train_ds.items.index[i] for i in (2, 5)}
    for row in table.df.itertuples():
        i = int(row.Index[1:])
        assert f'xxbos {seven[i%7]} {seven[i//7]} good film' in row.text
        assert len(row.text) <= 160 and row.text.endswith(' …')
        assert row.label == df.label[row.Index]
    assert (table.df.prob_wrong == issues.prob_wrong[:4]).all() and not plt.get_fignums()

def rows(n=40):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(age=rng.integers(20, 70, n).astype(float), job=rng.choice(['cook', 'judge'], n),
                           label=[classes[i%3] for i in range(n)]), index=[f'r{i}' for i in range(n)])
    return df.sample(frac=1, random_state=0)

def table_dls(df):
    return TabularDataLoaders.from_df(df, cat_names='job', cont_names='age', y_names='label', bs=8,
                                      procs=[Categorify, Normalize], valid_idx=list(range(8)))

def test_rows_of_a_table(table):
    df = rows()
    dls = table_dls(df)
    before = dls.train_ds.items.copy()
    issues = ranked(dls, wrong=[2])
    saved = pd.read_csv(io.StringIO(issues[:2].to_csv()))
    valid = pd.DataFrame(dict(source=[df.index[0]], label=['cat'], likely=['dog'], prob_wrong=[.9]))
    for some in (issues[:3], saved, valid):
        show_issues(dls, some)
        assert list(table.df.columns) == ['age', 'job', 'label', 'likely', 'prob_wrong'] and len(table.df) == len(some)
        for row in table.df.itertuples():
            assert row.job == df.job[row.Index] and row.age == pytest.approx(df.age[row.Index], rel=1e-5)
    assert table.df.index[0] == df.index[0]
    pd.testing.assert_frame_equal(before, dls.train_ds.items)

def test_what_has_no_picture_is_written(table):
    dls = DataLoaders(*[DataLoader([(tensor(i/2), i%3) for i in range(30)], bs=8, num_workers=0) for _ in range(2)])
    show_issues(dls, ranked(dls, wrong=[4]), k=1)
    assert table.df.text.tolist() == ['tensor(2.)'] and table.df.likely.tolist() == [2]

# How many

@pytest.mark.parametrize('k,shown', [(1, 1), (7, 7), (9, 9), (1000, 32)])
def test_k_may_be_more_than_there_are(k, shown, tmp_path):
    dls = files(tmp_path)
    show_issues(dls, ranked(dls), k=k)
    assert len(titles()) == shown

def test_an_empty_list_is_said(tmp_path, capsys):
    dls = files(tmp_path)
    show_issues(dls, ranked(dls)[:0])
    assert capsys.readouterr().out == 'no issues to show\n' and not plt.get_fignums()

bad = {
    'k=0': (dict(k=0), 'k=0: expected a number of items, at least 1'),
    'k=2.5': (dict(k=2.5), 'k=2.5: expected a number of items'),
    'a list': (dict(issues=['a.png']), 'expected a DataFrame as `label_issues` gives it, with a column `source`'),
    'no source': (dict(issues=pd.DataFrame(dict(label=['cat']))), 'with a column `source`'),
    'no label': (dict(issues=pd.DataFrame(dict(source=['a.png'], likely='cat'))), 'expected `label` among them'),
    'no suggestion': (dict(issues=pd.DataFrame(dict(source=['a.png'], label='cat'))), 'expected `fix` or `likely`'),
    'foreign': (dict(issues=pd.DataFrame(dict(source=['a.png'], label='cat', likely='dog'))),
                "the source 'a.png', 1 in all, which is not among the training or validation items"),
}

@pytest.mark.parametrize('kwargs,message', list(bad.values()), ids=list(bad))
@pytest.mark.parametrize('f', [show_issues, IssuesCleaner], ids=lambda o: o.__name__)
def test_bad_arguments(f, kwargs, message, tmp_path):
    dls = files(tmp_path)
    if f is IssuesCleaner:
        kwargs = {'max_n' if k == 'k' else k: v for k,v in kwargs.items()}
        message = message.replace('k=', 'max_n=')
    kwargs = {'issues': pd.DataFrame(dict(source=[source(dls, 0)], label='cat', likely='dog')), **kwargs}
    with pytest.raises(ValueError, match=message): f(dls, **kwargs)
    assert not plt.get_fignums()

# The widget

def menus(cleaner): return [box[1] for box in cleaner.iw.widget.children]

def captions(cleaner): return [box[2].value for box in cleaner.iw.widget.children]

def colour(box): return int(np.array(Image.open(io.BytesIO(box[0].value)))[0, 0, 0])/3

def test_worst_first_with_the_suggestion_chosen(tmp_path):
    dls = files(tmp_path)
    issues = ranked(dls, wrong=[2, 5])
    cleaner = IssuesCleaner(dls, issues, max_n=4, height=60, width=30)
    assert [o.value for o in menus(cleaner)] == list(issues.likely[:4])
    assert all(o.options == ('<Keep>', '<Delete>', *classes) for o in menus(cleaner))
    for box,row in zip(cleaner.iw.widget.children, issues.itertuples()):
        assert colour(box) == number(row.source) and Image.open(io.BytesIO(box[0].value)).size == (30, 45)
        assert box[2].value.startswith(f'{row.label} → {row.likely}, ')
    assert cleaner.widget[0].value == '4 of 32 issues' and cleaner.widget[1] is cleaner.iw.widget

def test_it_is_displayed(tmp_path, monkeypatch):
    dls = files(tmp_path)
    cleaner,seen = IssuesCleaner(dls, ranked(dls)),[]
    monkeypatch.setattr('IPython.display.display', seen.append)
    cleaner._ipython_display_()
    assert seen == [cleaner.widget] and len(menus(cleaner)) == 30

@pytest.mark.parametrize('from_file', [False, True], ids=['as it is', 'from a file'])
def test_relabel_takes_the_fixes(from_file, tmp_path):
    dls = files(tmp_path)
    issues = ranked(dls, wrong=[2, 5, 9, 11])[:4]
    if from_file: issues = pd.read_csv(io.StringIO(issues.to_csv()))
    cleaner = IssuesCleaner(dls, issues)
    kept,deleted,other,agreed = menus(cleaner)
    kept.value,deleted.value = '<Keep>','<Delete>'
    other.value = next(o for o in classes if o not in (issues.label.iloc[2], issues.likely.iloc[2]))
    fixes = cleaner.fixes()
    assert list(fixes) == ['source', 'label', 'fix'] and fixes.source.tolist() == issues.source[1:].tolist()
    assert fixes.label.tolist() == issues.label[1:].tolist()
    assert fixes.fix.isna().tolist() == [True, False, False]
    assert fixes.fix[1:].tolist() == [other.value, issues.likely.iloc[3]]
    if from_file: fixes = pd.read_csv(io.StringIO(fixes.to_csv()))
    fixed = relabel(dls, fixes)
    def labels(dls): return {str(o): dls.vocab[y] for o,(_,y) in zip(dls.train_ds.items, dls.train_ds)}
    want = labels(dls)
    del want[str(issues.source.iloc[1])]
    want |= {str(issues.source.iloc[2]): other.value, str(issues.source.iloc[3]): issues.likely.iloc[3]}
    assert labels(fixed) == want
    assert [o.value for o in menus(IssuesCleaner(dls, fixes))] == ['<Delete>', other.value, issues.likely.iloc[3]]

def test_nothing_is_changed_where_all_is_kept_or_the_label_chosen(tmp_path):
    dls = files(tmp_path)
    issues = ranked(dls, wrong=[2])[:2]
    cleaner = IssuesCleaner(dls, issues)
    menus(cleaner)[0].value,menus(cleaner)[1].value = '<Keep>',issues.label.iloc[1]
    for o in (cleaner, IssuesCleaner(dls, issues[:0])):
        assert len(o.fixes()) == 0
        assert len(relabel(dls, o.fixes()).train_ds) == 32

def test_all_deleted(tmp_path):
    dls = files(tmp_path)
    cleaner = IssuesCleaner(dls, ranked(dls, wrong=[2])[:3])
    for o in menus(cleaner): o.value = '<Delete>'
    assert len(relabel(dls, cleaner.fixes()).train_ds) == 29
    assert cleaner.delete() == [0, 1, 2] # as of fastai's ImagesCleaner

def test_several_labels_are_cleaned(tmp_path):
    _,dls = several(tmp_path)
    issues = ranked(dls, BCEWithLogitsLossFlat(), wrong=[(2, 0), (2, 1), (7, 1)])[:3]
    cleaner = IssuesCleaner(dls, issues)
    assert [o.value for o in menus(cleaner)] == list(1-issues.label)
    assert all(o.options == ('<Keep>', '<Delete>', 0, 1) for o in menus(cleaner))
    assert captions(cleaner)[0].startswith(f'{issues.name.iloc[0]}: {issues.label.iloc[0]} → ')
    menus(cleaner)[1].value = '<Keep>'
    fixes = cleaner.fixes()
    assert list(fixes) == ['source', 'name', 'label', 'fix'] and len(fixes) == 2
    fixed,n = relabel(dls, fixes),0
    for i in range(len(dls.train_ds)): n += (dls.train_ds[i][1] != fixed.train_ds[i][1]).sum().item()
    assert n == 2

def test_classes_without_names(tmp_path):
    files(tmp_path)
    src = in_order(tmp_path)
    block = DataBlock((ImageBlock, TransformBlock), get_y=lambda o: tensor(number(o)%3), splitter=IndexSplitter([0, 1]))
    dls = block.dataloaders(src, bs=4, num_workers=0)
    cleaner = IssuesCleaner(dls, ranked(dls, wrong=[4]), max_n=2)
    assert menus(cleaner)[0].options == ('<Keep>', '<Delete>', 0, 1, 2)
    fixed = relabel(dls, cleaner.fixes())
    assert fixed.train_ds[4][1] == (dls.train_ds[4][1]+1)%3

def test_other_items_are_refused(tmp_path):
    dls,_ = masked()
    with pytest.raises(TypeError, match='masks or sequences.*`show_issues` shows masks'):
        IssuesCleaner(dls, of_masks(dls, [(3, slice(0, 2))]))
    texts = TextDataLoaders.from_df(words(), text_col='text', label_col='label', valid_pct=.2, seed=0, bs=8)
    items = [(torch.rand(3, 8, 8), i%3) for i in range(30)]
    tensors = DataLoaders(*[DataLoader(items, bs=8, num_workers=0) for _ in range(2)])
    for dls,kind in ((texts, 'str'), (table_dls(rows()), 'Series'), (tensors, 'Tensor')):
        with pytest.raises(TypeError, match=f'inputs of type {kind}: expected images.*`show_issues` shows other items'):
            IssuesCleaner(dls, ranked(dls))

def test_a_suggestion_that_is_no_class(tmp_path):
    dls = files(tmp_path)
    with pytest.raises(ValueError, match="'horse' is no class: expected one of"):
        IssuesCleaner(dls, pd.DataFrame(dict(source=[source(dls, 0)], label='cat', likely='horse')))

def test_without_ipywidgets_it_says_what_to_install(tmp_path, monkeypatch):
    dls = files(tmp_path)
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    issues = ranked(dls)
    with pytest.raises(ImportError, match=r'pip install "fastai_labelsmooth\[widgets\]"'): IssuesCleaner(dls, issues)
    show_issues(dls, issues, k=1)
    assert len(titles()) == 1

# From the training to the fixes

def test_a_learner_of_image_files(tmp_path):
    "Two kinds of pictures, some in the wrong folder: found, shown, corrected, and trained on"
    rng = np.random.default_rng(0)
    is_wrong = rng.random(160) < .15
    for i in range(160):
        im = rng.integers(0, 90, (6, 6, 3)) + (np.array([140, 0, 0]) if i%2 else np.array([0, 0, 140]))
        file = tmp_path/('red' if (i%2) ^ is_wrong[i] else 'blue')/f'{i}.png'
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(im.astype(np.uint8)).save(file)
    dls = ImageDataLoaders.from_folder(tmp_path, valid_pct=.2, seed=0, bs=16, num_workers=0)
    learn = quiet(Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(108, 2)), CrossEntropyLossFlat()))
    issues = learn.label_issues(5, lr=1e-2, folds=3)
    assert is_wrong[[number(o) for o in issues.source]].mean() > .9 and len(issues) > 10
    show_issues(dls, issues, k=4)
    for (title,(im,)),row in zip(pictures(), issues.itertuples()):
        assert title.startswith(f'{row.label} → {row.likely}, ') and (im == np.array(Image.open(row.source))).all()
    learn.dls = relabel(dls, IssuesCleaner(dls, issues).fixes())
    left = [(dls.vocab[y] == 'red') != number(o)%2 for o,(_,y) in zip(learn.dls.train_ds.items, learn.dls.train_ds)]
    assert sum(left) <= is_wrong.sum()*.3
    learn.fit(1, 1e-2)
