"""Writes the photographs of this folder, which tests compose scenes onto: 161×120 pixels each, like
`native/imaging/tests/fixtures/transforms/photo.png`.

    pip install pillow scikit-image scikit-learn && python make.py

Licences: astronaut.png public domain, NASA; chelsea.png CC0, Stéfan van der Walt; rocket.png public domain,
SpaceX (see the docstrings of skimage.data); china.png and flower.png CC BY 2.0, danielbuechele and vultilion on flickr.com (see
sklearn/datasets/images/README.txt).
"""
import os, skimage.data
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

photographs = {
    "astronaut": skimage.data.astronaut(),
    "chelsea": skimage.data.chelsea(),
    "rocket": skimage.data.rocket(),
    "china": load_sample_image("china.jpg"),
    "flower": load_sample_image("flower.jpg"),
}
for name, pixels in photographs.items():
    to = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".png")
    ImageOps.fit(Image.fromarray(pixels), (161, 120), Image.LANCZOS).save(to, optimize=True)
