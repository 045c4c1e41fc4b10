"""A whole training step with `LabelSmooth`, and the same Learner without: an MLP (with MixUp too), a resnet18, a small
U-Net, and a resnet18 whose images two workers decode meanwhile. Then what the import costs. Writes its part of README.md
and steps.png.

The two Learners of a row take turns in shuffled order, each doing the same batches; medians, of the ratio that of the turns."""
import subprocess, sys, tempfile, warnings
from pathlib import Path
warnings.filterwarnings('ignore')
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from report import budget, busy, device, setup, spread, timed, write_part

def images(n, *shape): return torch.randn(n, *shape)

def mlp():
    return (images(64, 64), torch.randint(0, 10, (64,))), nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), CrossEntropyLossFlat()

def resnet():
    return (images(32, 3, 64, 64), torch.randint(0, 10, (32,))), create_vision_model(resnet18, 10, pretrained=False), CrossEntropyLossFlat()

def unet():
    "The first half of a resnet18, and no shortcut from the image"
    model = create_unet_model(resnet18, 21, (128, 128), pretrained=False, cut=-4, last_cross=False)
    return (images(4, 3, 128, 128), torch.randint(0, 21, (4, 128, 128))), model, CrossEntropyLossFlat(axis=1)

cases = {'MLP, (64, 64) to 10 classes': (mlp, 50), 'the same with MixUp': (mlp, 50), 'resnet18, 32 images of 64×64, 10 classes': (resnet, 1), 'U-Net, 4 images of 128×128, 21 classes': (unet, 1)}

def steps(make, n_batches, cbs=None):
    "A function that does `n_batches` training steps of a Learner that is in the midst of a fit"
    set_seed(0)
    batch,model,loss_func = make()
    dls = DataLoaders.from_dsets(list(zip(*batch)), list(zip(*batch)), bs=len(batch[0]), device=device, num_workers=0)
    learn = Learner(dls, model, loss_func, cbs=cbs)
    learn.remove_cb(ProgressCallback)
    with learn.no_logging(): learn.fit(1)
    learn('before_train')
    batch = to_device(batch, device)
    def run():
        for i in range(n_batches): learn.one_batch(i, batch)
    return run

def jpegs(path, n=256):
    "Photographs of noise, as files to decode"
    for i in range(n): PILImage.create(np.random.default_rng(i).integers(0, 255, (224, 224, 3), dtype='uint8')).save(path/f'{i%10}_{i}.jpg')

def epochs(path, cbs=None):
    "A function that trains an epoch on images that two workers decode"
    set_seed(0)
    dls = ImageDataLoaders.from_name_func(path, sorted(path.glob('*.jpg')), label_func=lambda f: f.split('_')[0], valid_pct=.05,
                                          bs=32, num_workers=2, item_tfms=Resize(64), device=device)
    learn = vision_learner(dls, resnet18, pretrained=False, normalize=False, cbs=cbs)
    learn.unfreeze()
    def run():
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
    run()
    return run

def compare(name, runs, n_batches, seconds):
    "A row of the table"
    t = timed(runs, seconds)
    ms = t.median()*1e3/n_batches
    row = {'without (ms)': ms['without'], 'with (ms)': ms['with'], 'with / without': (t['with']/t['without']).median(),
           'turns': len(t), 'spread': spread(t).max()}
    print(name, row, flush=True)
    return row

def import_seconds(first, n=5):
    "What our import takes after fastai's, in fresh processes"
    code = f'from {first} import *\nimport time\nstart = time.perf_counter()\nfrom fastai_labelsmooth.all import *\nprint(time.perf_counter()-start)'
    runs = [subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True) for _ in range(n)]
    return np.median([float(o.stdout.split()[-1]) for o in runs])

def main():
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows = {}
    for name,(make,n_batches) in cases.items():
        mix = [MixUp()] if 'MixUp' in name else []
        runs = {'without': steps(make, n_batches, mix), 'with': steps(make, n_batches, [*mix, LabelSmooth()])}
        rows[name] = compare(name, runs, n_batches, 2.5*budget)
        if device.type == 'cpu':
            with busy(): rows[f'{name}, busy cores'] = compare(f'{name}, busy cores', runs, n_batches, 20)
    with tempfile.TemporaryDirectory() as d:
        jpegs(path := Path(d))
        name = 'resnet18, an epoch of 8 batches that two workers decode'
        rows[name] = compare(name, {'without': epochs(path), 'with': epochs(path, LabelSmooth())}, 1, 7.5*budget)
    df = pd.DataFrame(rows).T
    suffix,imports = '' if device.type == 'cpu' else f'-{device.type}',''
    if not suffix:
        basics,vision = (import_seconds(o) for o in ('fastai.basics', 'fastai.vision.all'))
        imports = f"`from fastai_labelsmooth.all import *` takes {basics:.2f} s after `fastai.basics`, {vision:.2f} s after `fastai.vision.all`.\n\n"
    fig,ax = plt.subplots(figsize=(8, 2.2), layout='constrained')
    ax.barh(df.index, (df['with / without']-1)*100, color='#0072B2')
    ax.axvline(0, color='black', lw=1)
    ax.invert_yaxis()
    ax.set(xlabel='cost of LabelSmooth in a training step (%)')
    fig.savefig(Path(__file__).parent/f'steps{suffix}.png', dpi=90)
    write_part(f'steps{suffix}', f"""{setup()}

{df.to_markdown(floatfmt=('', '.2f', '.2f', '.3f', '.0f', '.0%'))}

{imports}![Cost of LabelSmooth in a training step](steps{suffix}.png)""")

if __name__ == '__main__': main()
