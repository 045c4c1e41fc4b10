"`without` and `relabel` take a list in any form, change the items that it means, and refuse what it cannot mean"
import io, sys
import numpy as np, pandas as pd, pytest, torch
from torch import tensor
from PIL import Image
from fastai.basics import *
from fastai.data.all import CategoryBlock, ColReader, DataBlock, RandomSplitter, TransformBlock
from fastai.tabular.all import TabularDataLoaders
from fastai.text.all import TextDataLoaders
from fastai.vision.all import ImageDataLoaders, MultiCategoryBlock
from fastai_labelsmooth.all import *
from fastai_labelsmooth.wrong_labels.fix import class_indices
from helpers import quiet, run_process

classes = ['cat', 'dog', 'cow']

def frame(n=60):
    "Rows whose index says nothing of their position"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(x=rng.normal(size=n), y=[classes[i%3] for i in range(n)]))
    df['text'] = [f'word{i} good' for i in range(n)]
    return df.sample(frac=1, random_state=1)

def table(df, seed=0):
    valid = list(range(seed%4, 60, 4))
    return TabularDataLoaders.from_df(df, cont_names=['x'], y_names='y', procs=[], valid_idx=valid, bs=8)

def text(df, seed=0):
    return TextDataLoaders.from_df(df, text_col='text', label_col='y', valid_pct=.25, seed=seed, bs=8)

def block(df, seed=0):
    return DataBlock((TransformBlock, CategoryBlock), get_x=lambda r: tensor(r.x), get_y=ColReader('y'),
                     splitter=RandomSplitter(.25, seed=seed)).dataloaders(df, bs=8, num_workers=0)

def images(path, seed=0):
    for i in range(24):
        file = path/classes[i%3]/f'{i}.png'
        if file.exists(): continue
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8)).save(file)
    return ImageDataLoaders.from_folder(path, valid_pct=.25, seed=seed, bs=8, num_workers=0)

of_frames = dict(table=table, text=text, block=block)
each_frame = pytest.mark.parametrize('make', list(of_frames.values()), ids=list(of_frames))

def label_names(dl):
    vocab = dl.vocab if isinstance(dl.vocab[-1], str) else dl.vocab[-1] # of text, the words come first
    return [vocab[i] for i in class_indices(dl.dataset)]

def rows(dl): return list(dl.dataset.items.index)

# Which items

@each_frame
def test_the_frame_of_issues_and_its_sources(make):
    dls = make(frame())
    some = rows(dls.train)[3:9]
    issues = pd.DataFrame(dict(source=some, label='cat', likely='dog'))
    mask = np.isin(rows(dls.train), some)
    lists = [issues, issues.source, pd.Index(some, name='source'), mask, mask.tolist(), pd.Series(mask), tensor(mask),
             pd.Series(range(3, 9), name='item')]
    for items in lists:
        left = without(dls, items)
        assert rows(left.train) == [o for o in rows(dls.train) if o not in some]
        assert rows(left.valid) == rows(dls.valid) and len(dls.train_ds) == 45
        assert label_names(left.train) == [y for o,y in zip(rows(dls.train), label_names(dls.train)) if o not in some]

@each_frame
def test_numbers_that_could_be_either_are_refused(make):
    dls = make(frame())
    for items in ([3, 4], {3, 4}, tensor([3, 4]), np.array([3, 4]), pd.Series([3, 4])):
        with pytest.raises(ValueError, match="the training items have numbers too: expected the issues themselves"):
            without(dls, items)

def test_paths_positions_and_sets(tmp_path):
    dls = images(tmp_path)
    files = list(dls.train_ds.items)
    by_path = files[2:4],{*files[2:4]},list(map(str, files[2:4]))
    by_position = [2, 3],{2, 3},tensor([2, 3]),np.array([2., 3.])
    for items in (*by_path, *by_position):
        assert list(without(dls, items).train_ds.items) == files[:2]+files[4:]
    assert len(without(dls, []).train_ds) == len(files)

wrong_items = {
    'foreign path': (lambda fs: ['no/such.png'], "source 'no/such.png', 1 in all"),
    'negative': (lambda fs: [-1], 'value -1: expected positions in the training set, 0 to 17'),
    'too large': (lambda fs: [5000], 'value 5000'),
    'fraction': (lambda fs: [1.9], 'value 1.9'),
    'not a number': (lambda fs: [np.nan], 'value nan'),
    'short mask': (lambda fs: [True, False], r'mask of 2 values: expected one for each of the 18 .* or `issues\[mask'),
    'frame without source': (lambda fs: pd.DataFrame(dict(label=['cat'])), r"columns \['label'\]: expected one from"),
    'one word': (lambda fs: str(fs[0]), 'expected a list of sources'),
}

@pytest.mark.parametrize('items,message', list(wrong_items.values()), ids=list(wrong_items))
def test_items_that_are_none(items, message, tmp_path):
    dls = images(tmp_path)
    with pytest.raises((TypeError, ValueError), match=message): without(dls, items(list(dls.train_ds.items)))

def test_a_source_that_stands_for_several_rows():
    df = frame()
    df.index = [0]*60
    dls = block(df)
    with pytest.raises(ValueError, match='source 0 stands for several items: expected a DataFrame with a unique index'):
        without(dls, pd.Series([0], name='source'))

@pytest.mark.parametrize('make', [*of_frames.values(), images], ids=[*of_frames, 'files'])
def test_a_saved_list_works_in_another_split(make, tmp_path, capsys):
    data = tmp_path if make is images else frame()
    def src(dl): return list(dl.dataset.items) if make is images else rows(dl)
    some = src(make(data).train)[:6]
    saved = pd.read_csv(io.StringIO(pd.DataFrame(dict(source=some, likely='cow')).to_csv()))
    other = make(data, 7)
    in_train = [o for o in src(other.train) if o in some]
    assert 0 < len(in_train) < 6
    capsys.readouterr()
    assert src(without(other, saved).train) == [o for o in src(other.train) if o not in some]
    assert f'{6-len(in_train)} of the items are in the validation set, and stay there' in capsys.readouterr().out
    fixed = relabel(other, saved)
    for k,dl in enumerate(fixed.loaders):
        before = label_names(other.loaders[k])
        assert label_names(dl) == ['cow' if o in some else y for o,y in zip(src(dl), before)]

def test_another_process_finds_the_same_items(tmp_path):
    images(tmp_path)
    pd.DataFrame(dict(source=[tmp_path/'cat'/'0.png', tmp_path/'dog'/'1.png'])).to_csv(tmp_path/'issues.csv')
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_fix import *
path = Path({str(tmp_path)!r})
dls = images(path, 3)
left = without(dls, pd.read_csv(path/'issues.csv'))
print(sorted(o.name for o in {{*dls.train_ds.items}} - {{*left.train_ds.items}}))
"""
    printed = run_process([sys.executable, '-W', 'ignore', '-c', code], 120)
    expected = sorted(o.name for o in images(tmp_path, 3).train_ds.items if o.name in ('0.png', '1.png'))
    assert str(expected) in printed

# What is said

def test_it_says_what_is_left_and_who_lost_most(capsys):
    dls = block(frame())
    names,src = label_names(dls.train),rows(dls.train)
    cats = [o for o,y in zip(src, names) if y == 'cat'][:5]
    without(dls, pd.Series(cats, name='source'))
    said = f"5 of 45 training items left out, 40 remain; most of 'cat': 5 of {names.count('cat')}\n"
    assert capsys.readouterr().out == said

@each_frame
def test_a_class_is_never_emptied_in_silence(make):
    dls = make(frame())
    cats = [o for o,y in zip(rows(dls.train), label_names(dls.train)) if y == 'cat']
    with pytest.warns(UserWarning, match="no training item is left of 'cat'"):
        without(dls, pd.Series(cats, name='source'))

def test_two_lists_one_after_the_other():
    "Positions of plain data stay those of the whole"
    items = [(tensor(float(i)), i%3) for i in range(30)]
    dls = DataLoaders(DataLoader(items, bs=8, shuffle=True), DataLoader(items[:8], bs=8))
    left = without(without(dls, pd.Series([0, 1], name='source')), pd.Series([2, 3], name='source'))
    assert sorted(torch.cat([x for x,_ in left.train]).tolist()) == list(range(4, 30))
    with pytest.raises(ValueError, match='source 0, 1 in all'): without(left, pd.Series([0], name='source'))

# Other labels

@each_frame
def test_labels_are_corrected(make, capsys):
    dls = make(frame())
    src,before = rows(dls.train),label_names(dls.train)
    issues = pd.DataFrame(dict(source=src[:4], likely=['dog', 'cow', 'cat', 'dog'], fix=['cow', None, 'cow', 'dog']))
    fixed = relabel(dls, issues)
    n = np.sum(np.array(['cow', 'cow', 'dog']) != [before[0], before[2], before[3]])
    assert f'{n} training labels corrected' in capsys.readouterr().out
    assert rows(fixed.train) == [src[0], *src[2:]] # what has no fix is left out
    assert label_names(fixed.train) == ['cow', 'cow', 'dog', *before[4:]]
    assert label_names(dls.train) == before
    assert label_names(relabel(dls, issues.drop(columns='fix')).train) == ['dog', 'cow', 'cat', 'dog', *before[4:]]
    seen = [int(i) for b in fixed.train for i in b[-1].flatten()]
    assert set(seen) <= {0, 1, 2}
    assert len(fixed.train.one_batch()[-1]) == 8 # and batches can be drawn

def test_corrected_images_are_trained_on(tmp_path):
    dls = images(tmp_path)
    files = list(dls.train_ds.items)
    fixed = relabel(dls, pd.DataFrame(dict(source=files, likely='cow')))
    assert {dls.vocab[i] for b in fixed.train for i in b[1]} == {'cow'}
    left = without(fixed, files[:3])
    assert {dls.vocab[i] for b in left.train for i in b[1]} == {'cow'} and len(left.train_ds) == 15
    test = fixed.test_dl(files[:2])
    assert len(test.one_batch()[0]) == 2

@pytest.mark.parametrize('y', [1, 1., np.int64(1), tensor(1), tensor(1.), tensor([1.])],
                         ids=['int', 'float', 'numpy', 'tensor', 'float tensor', 'column'])
def test_a_corrected_target_keeps_its_type(y):
    dls = DataLoaders(*[DataLoader([(tensor(0.), y)]*10, bs=5) for _ in range(2)])
    new = relabel(dls, pd.DataFrame(dict(source=[2], likely=[0]))).train_ds[2][1]
    assert type(new) is type(y) and np.shape(new) == np.shape(y) and new == 0
    if isinstance(y, Tensor): assert new.dtype == y.dtype

def test_several_labels():
    df = pd.DataFrame(dict(x=np.arange(30.), a=[1, 0]*15, b=[0, 1, 1]*10))
    block = DataBlock((TransformBlock, MultiCategoryBlock(encoded=True, vocab=['a', 'b'])), get_x=ColReader('x'),
                      get_y=ColReader(['a', 'b']), splitter=RandomSplitter(.2, seed=0))
    dls = block.dataloaders(df, bs=8, num_workers=0)
    src = rows(dls.train)
    issues = pd.DataFrame(dict(item=[0, 0, 4], source=[src[0], src[0], src[4]], name=['a', 'b', 'b'],
                               label=[int(df.a[src[0]]), int(df.b[src[0]]), int(df.b[src[4]])]))
    fixed = relabel(dls, issues)
    for i in range(len(src)):
        old,new = dls.train_ds[i][1],fixed.train_ds[i][1]
        flips = {0: [1, 1], 4: [0, 1]}.get(i, [0, 0])
        assert (old != new).int().tolist() == flips and type(new) is type(old)
    assert len(without(dls, issues).train_ds) == len(src)-2

def test_bad_fixes(tmp_path):
    dls = images(tmp_path)
    src = list(dls.train_ds.items)[:1]
    with pytest.raises(ValueError, match=r"'horse' is no class: expected one of \['cat', 'cow', 'dog'\]"):
        relabel(dls, pd.DataFrame(dict(source=src, fix=['horse'])))
    with pytest.raises(ValueError, match='expected `fix` or `likely`'): relabel(dls, pd.DataFrame(dict(source=src)))
    with pytest.raises(ValueError, match='expected a DataFrame as `label_issues` gives it'): relabel(dls, src)
    masks = DataLoaders(*[DataLoader([(torch.zeros(3, 4, 4), torch.zeros(4, 4).long())]*8, bs=4) for _ in range(2)])
    with pytest.raises(ValueError, match='A mask has to be drawn again'):
        relabel(masks, pd.DataFrame(dict(source=[0], likely=[1])))

def test_items_without_a_label_are_of_no_class(capsys):
    "Class 0 is emptied, although ignored items remain"
    items = [(tensor(float(i)), tensor([0, 1, -100][i%3])) for i in range(30)]
    dls = DataLoaders(*[DataLoader(items, bs=5) for _ in range(2)])
    with pytest.warns(UserWarning, match='no training item is left of 0'): without(dls, list(range(0, 30, 3)))
    assert 'most of 0: 10 of 10' in capsys.readouterr().out

def test_a_list_of_most_items_is_a_ranking(tmp_path):
    dls = images(tmp_path)
    with pytest.warns(UserWarning, match=r'89% of the training items are left out.*`issues\[:n\]`'):
        without(dls, range(16))

def test_a_learner_is_no_dls(tmp_path):
    learn = quiet(Learner(images(tmp_path), nn.Linear(1, 3), CrossEntropyLossFlat()))
    issues = pd.DataFrame(dict(source=list(learn.dls.train_ds.items)[:1], label='cat', likely='cow', prob_wrong=.9))
    for f in (without, relabel, show_issues, IssuesCleaner):
        with pytest.raises(TypeError, match='dls is a Learner: expected its DataLoaders, learn.dls'): f(learn, issues)

def test_classes_that_are_fractions_or_look_like_nothing():
    df = pd.DataFrame(dict(x=np.arange(40.), y=np.arange(40)%3*.5, z=['None', 'a']*20), [f'r{i}' for i in range(40)])
    for col,likely in (('y', 1.), ('z', 'None')):
        dls = TabularDataLoaders.from_df(df, cont_names=['x'], y_names=col, y_block=CategoryBlock(), valid_idx=[0, 1])
        issues = pd.DataFrame(dict(source=['r5', 'r7'], likely=[likely]*2))
        saved = io.StringIO(issues.to_csv())
        read = pd.read_csv(saved, keep_default_na=False)
        fixed = relabel(dls, read).train_ds.items.loc[['r5', 'r7'], col]
        assert [dls.vocab[i] for i in fixed] == [likely]*2
    saved.seek(0)
    with pytest.raises(ValueError, match='no `likely` in some rows.*keep_default_na=False'):
        relabel(dls, pd.read_csv(saved))

def test_only_changes_are_counted(capsys):
    dls = block(frame())
    src,before = rows(dls.train),label_names(dls.train)
    relabel(dls, pd.DataFrame(dict(source=src[:3], fix=before[:3])))
    assert '0 training labels corrected' in capsys.readouterr().out

def test_a_class_that_no_label_has_is_refused():
    dls = DataLoaders(*[DataLoader([(torch.zeros(3), tensor(i%3)) for i in range(12)], bs=4) for _ in range(2)])
    with pytest.raises(ValueError, match=r"'7' is no class: expected one of \['0', '1', '2'\]"):
        relabel(dls, pd.DataFrame(dict(source=[0], fix=[7])))

def test_numbers_in_messages_are_plain(capsys):
    "The vocab that fastai makes of a column of numbers holds numpy's"
    df = pd.DataFrame(dict(x=np.arange(40.), y=np.arange(40)%2), np.arange(100, 140))
    dls = TabularDataLoaders.from_df(df, cont_names=['x'], y_names='y', y_block=CategoryBlock(),
                                     valid_idx=list(range(30, 40)))
    some = pd.Index([100, 102], name='source')
    left = without(dls, some)
    assert '; most of 0: 2 of 15' in capsys.readouterr().out
    with pytest.raises(ValueError, match=r'source 100, 2 in all.*left out already.*such as 101$'): without(left, some)
