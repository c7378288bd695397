"""Stages used one by one from Python, without a run folder: draw, screen, look."""

import lesionforge as lf


def main() -> None:
    chain = lf.Chain.parse("phantom(size=64) | mask-quality(max_area=0.3)")
    batch = lf.Batch.blank(8, seed=7)
    for stage in chain.open(device="cpu"):
        batch = stage(batch)
    assert batch.images is not None
    for case_id, rejection in zip(batch.ids, batch.rejections, strict=True):
        print(case_id, "kept" if rejection is None else f"rejected by {rejection}")
    print("mean colour of the batch:", batch.images.mean(dim=(0, 2, 3)).tolist())


if __name__ == "__main__":
    main()
