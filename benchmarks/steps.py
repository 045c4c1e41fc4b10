"""A whole training step with `LabelSmooth` beside the same Learner without: an MLP, a resnet18 and a small U-Net.
Writes its part of README.md and steps.png.

The two Learners of a row take turns in shuffled order, each doing the same batches; medians, of the ratio that of the turns."""
import warnings
from functools import partial
from pathlib import Path
warnings.filterwarnings('ignore')
from fastai.vision.all import *
from fastai_labelsmooth.all import *
from report import device, setup, spread, timed, write_part

def images(n, *shape): return torch.randn(n, *shape)

def mlp():
    return (images(64, 64), torch.randint(0, 10, (64,))), nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), CrossEntropyLossFlat()

def resnet():
    return (images(32, 3, 64, 64), torch.randint(0, 10, (32,))), create_vision_model(resnet18, 10, pretrained=False), CrossEntropyLossFlat()

def unet():
    "The first half of a resnet18, and no shortcut from the image"
    model = create_unet_model(resnet18, 21, (128, 128), pretrained=False, cut=-4, last_cross=False)
    return (images(4, 3, 128, 128), torch.randint(0, 21, (4, 128, 128))), model, CrossEntropyLossFlat(axis=1)

cases = {'MLP, (64, 64) to 10 classes': (mlp, 50), 'resnet18, 32 images of 64×64, 10 classes': (resnet, 1), 'U-Net, 4 images of 128×128, 21 classes': (unet, 1)}

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

def main():
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows = {}
    for name,(make,n_batches) in cases.items():
        t = timed({'without': steps(make, n_batches), 'with': steps(make, n_batches, LabelSmooth())}, seconds=120)
        ms = t.median()*1e3/n_batches
        rows[name] = {'without (ms)': ms['without'], 'with (ms)': ms['with'], 'with / without': (t['with']/t['without']).median(),
                      'turns': len(t), 'spread': spread(t).max()}
        print(name, rows[name], flush=True)
    df = pd.DataFrame(rows).T
    suffix = '' if device.type == 'cpu' else f'-{device.type}'
    fig,ax = plt.subplots(figsize=(8, 2.2), layout='constrained')
    ax.barh(df.index, (df['with / without']-1)*100, color='#0072B2')
    ax.axvline(0, color='black', lw=1)
    ax.invert_yaxis()
    ax.set(xlabel='cost of LabelSmooth in a training step (%)')
    fig.savefig(Path(__file__).parent/f'steps{suffix}.png', dpi=90)
    write_part(f'steps{suffix}', f"""{setup()}

{df.to_markdown(floatfmt=('', '.2f', '.2f', '.3f', '.0f', '.0%'))}

![Cost of LabelSmooth in a training step](steps{suffix}.png)""")

if __name__ == '__main__': main()
