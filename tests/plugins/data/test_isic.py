from __future__ import annotations

import pytest

from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import DataError
from lesionforge.plugins.data import isic


def facts(dataset: Dataset) -> dict[str, tuple[str | None, str | None, bool]]:
    return {record.image_id: (record.split, record.label, record.mask is not None) for record in dataset.records}


def test_isic2016(tmp_path, write_image, write_mask, load):
    for split, image_id in (("Training", "ISIC_1"), ("Training", "ISIC_2"), ("Test", "ISIC_3")):
        write_image(tmp_path / f"ISBI2016_ISIC_Part1_{split}_Data" / f"{image_id}.jpg")
        write_mask(tmp_path / f"ISBI2016_ISIC_Part1_{split}_GroundTruth" / f"{image_id}_Segmentation.png")
    (tmp_path / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv").write_text("ISIC_1,benign\nISIC_2,malignant\n")
    (tmp_path / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv").write_text("ISIC_3,1.0\n")
    assert facts(load(isic.Isic2016, tmp_path)) == {
        "ISIC_1": ("train", "benign", True),
        "ISIC_2": ("train", "malignant", True),
        "ISIC_3": ("test", "malignant", True),
    }


def test_isic2017_reads_all_three_splits_and_ignores_superpixels(tmp_path, write_image, write_mask, load):
    for split, image_id in (("Training", "ISIC_1"), ("Validation", "ISIC_2"), ("Test_v2", "ISIC_3")):
        write_image(tmp_path / f"ISIC-2017_{split}_Data" / f"{image_id}.jpg")
        write_image(tmp_path / f"ISIC-2017_{split}_Data" / f"{image_id}_superpixels.png")
        write_mask(tmp_path / f"ISIC-2017_{split}_Part1_GroundTruth" / f"{image_id}_segmentation.png")
    header = "image_id,melanoma,seborrheic_keratosis\n"
    (tmp_path / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text(f"{header}ISIC_1,1.0,0.0\n")
    (tmp_path / "ISIC-2017_Validation_Part3_GroundTruth.csv").write_text(f"{header}ISIC_2,0.0,1.0\n")
    (tmp_path / "ISIC-2017_Test_v2_Part3_GroundTruth.csv").write_text(f"{header}ISIC_3,0.0,0.0\n")
    (tmp_path / "ISIC-2017_Training_Data_metadata.csv").write_text("image_id,age_approximate,sex\nISIC_1,55,male\n")
    dataset = load(isic.Isic2017, tmp_path)
    assert facts(dataset) == {
        "ISIC_1": ("train", "melanoma", True),
        "ISIC_2": ("val", "seborrheic_keratosis", True),
        "ISIC_3": ("test", "nevus", True),
    }
    assert dataset.records[0].metadata == {"age_approximate": "55", "sex": "male"}


def test_isic2018_task1_takes_splits_from_folders_and_needs_neither_masks_nor_labels(task1, load):
    dataset = load(isic.Isic2018, task1)
    assert facts(dataset) == {
        "ISIC_0000001": ("train", None, True),
        "ISIC_0000002": ("val", None, True),
        "ISIC_0000003": ("test", None, False),
    }
    assert dataset.fetch([0]).masks.sum() == 12
    with pytest.raises(DataError, match="'ISIC_0000003' has no mask"):
        dataset.fetch([2], masks=True)


def test_isic2018_labels_of_task3_win_over_those_of_2017_and_the_split_file_fills_gaps(task1, load):
    (task1 / "ISIC2018_Task3_Training_GroundTruth.csv").write_text(
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_0000001,0.0,0.0,0.0,0.0,1.0,0.0,0.0\n"
    )
    (task1 / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text(
        "image_id,melanoma,seborrheic_keratosis\nISIC_0000001,0,1\nISIC_0000002,1,0\n"
    )
    (task1 / "splits.csv").write_text(
        "image_id,split,same_lesion_group,diagnosis,site\n"
        "ISIC_0000001,test,g1,nevus,back\nISIC_0000002,,g1,nevus,\nISIC_0000003,validation,,nevus,\nISIC_9,train,,,\n"
    )
    dataset = load(isic.Isic2018, task1)
    assert facts(dataset) == {
        "ISIC_0000001": ("test", "benign_keratosis", True),
        "ISIC_0000002": ("val", "melanoma", True),
        "ISIC_0000003": ("val", "nevus", False),
    }
    assert [record.lesion for record in dataset.records] == ["g1", "g1", "ISIC_0000003"]
    assert dataset.records[0].metadata == {"site": "back"}


def test_captions_and_split_file_may_lie_elsewhere(task1, tmp_path_factory, load):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "c.json").write_text('{"ISIC_0000001.jpg": "une tache brune, à gauche"}', encoding="utf-8")
    (elsewhere / "s.csv").write_text("image_id,split\nISIC_0000001,test\n")
    dataset = load(isic.Isic2018, task1, captions=str(elsewhere / "c.json"), split_file=str(elsewhere / "s.csv"))
    assert dataset.records[0].caption == "une tache brune, à gauche"
    assert dataset.records[0].split == "test"


def test_fractions_replace_official_splits_and_keep_lesions_together(task1, load):
    (task1 / "splits.csv").write_text(
        "image_id,split,same_lesion_group\nISIC_0000001,train,g\nISIC_0000002,val,g\nISIC_0000003,test,g\n"
    )
    splits = {record.split for record in load(isic.Isic2018, task1, fractions=[0.5, 0.0, 0.5]).records}
    assert len(splits) == 1 and splits < {"train", "test"}


def test_isic2018_task3_groups_by_lesion(tmp_path, write_image, load):
    for number in (1, 2, 3):
        write_image(tmp_path / "ISIC2018_Task3_Training_Input" / f"ISIC_{number}.jpg")
    table = tmp_path / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    table.parent.mkdir()
    table.write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,1,0,0,0,0,0,0\nISIC_2,0,0,0,1,0,0,0\n")
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(
        "image,lesion_id,diagnosis_confirm_type\nISIC_1,HAM_7,histopathology\nISIC_2,HAM_7,histopathology\n"
    )
    dataset = load(isic.Isic2018, tmp_path, task=3)
    assert [record.group for record in dataset.records] == ["HAM_7", "HAM_7", ""]
    assert [record.label for record in dataset.records] == [
        "melanoma",
        "actinic_keratosis_or_intraepithelial_carcinoma",
        None,
    ]


def test_isic2019_reads_labels_groups_and_nested_archives(tmp_path, write_image, load):
    inner = tmp_path / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input"
    write_image(inner / "ISIC_1_downsampled.jpg")
    write_image(inner / "ISIC_2.jpg")
    write_image(tmp_path / "ISIC_2019_Test_Input" / "ISIC_3.jpg")
    codes = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
    (tmp_path / "ISIC_2019_Training_GroundTruth.csv").write_text(
        f"{codes}\nISIC_1_downsampled,0,0,0,0,0,0,0,1,0\nISIC_2,0,1,0,0,0,0,0,0,0\n"
    )
    (tmp_path / "ISIC_2019_Test_GroundTruth.csv").write_text(
        f"{codes},score_weight,validation_weight\nISIC_3,0,0,0,0,0,0,0,0,1,0.5,0\n"
    )
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text(
        "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_1_downsampled,55,anterior torso,BCN_1,female\n"
    )
    dataset = load(isic.Isic2019, tmp_path)
    assert facts(dataset) == {
        "ISIC_1_downsampled": ("train", "squamous_cell_carcinoma", False),
        "ISIC_2": ("train", "nevus", False),
        "ISIC_3": ("test", "other", False),
    }
    assert dataset.records[0].group == "BCN_1"
    assert dataset.records[0].metadata["anatom_site_general"] == "anterior torso"


@pytest.fixture
def isic2020(tmp_path, write_image):
    for name in ("A", "B", "C", "D"):
        write_image(tmp_path / "train" / f"ISIC_{name}.jpg")
    write_image(tmp_path / "ISIC_2020_Test_Input" / "ISIC_E.jpg")
    (tmp_path / "ISIC_2020_Training_GroundTruth_v2.csv").write_text(
        "image_name,patient_id,lesion_id,sex,diagnosis,benign_malignant,target\n"
        "ISIC_A,IP_1,IL_1,male,unknown,benign,0\nISIC_B,IP_2,IL_2,male,melanoma,malignant,1\n"
        "ISIC_C,IP_2,IL_3,,nevus,benign,0\nISIC_D,IP_3,IL_4,,nevus,benign,0\n"
    )
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").write_text(
        "image_name_1,image_name_2\nISIC_A,ISIC_B\nISIC_A,ISIC_GONE\n"
    )
    (tmp_path / "ISIC_2020_Test_Metadata.csv").write_text("image,patient,age_approx\nISIC_E,IP_9,40\n")
    return tmp_path


def test_isic2020_groups_by_patient_and_duplicates(isic2020, load):
    dataset = load(isic.Isic2020, isic2020)
    assert [record.label for record in dataset.records] == ["benign", "malignant", "benign", "benign", None]
    assert [record.split for record in dataset.records] == ["train"] * 4 + ["test"]
    one, two, three, four, five = (record.lesion for record in dataset.records)
    assert one == two == three and len({one, four, five}) == 3


def test_isic2020_diagnosis_leaves_unknown_unlabelled(isic2020, load):
    labels = [record.label for record in load(isic.Isic2020, isic2020, label_column="diagnosis").records]
    assert labels == [None, "melanoma", "nevus", "nevus", None]


def test_ham10000_with_kaggles_second_copy(tmp_path, write_image, write_mask, load):
    for number in range(1, 41):
        part = f"images_part_{1 + number % 2}"
        write_image(tmp_path / f"HAM10000_{part}" / f"ISIC_{number}.jpg")
        write_image(tmp_path / f"ham10000_{part}" / f"ISIC_{number}.jpg")
    write_mask(tmp_path / "HAM10000_segmentations_lesion_tschandl" / "ISIC_1_segmentation.png")
    rows = "".join(f"HAM_{number // 4},ISIC_{number},bkl,histo,80.0,male,scalp\n" for number in range(1, 41))
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
    (tmp_path / "HAM10000_metadata.csv").write_text(header + rows)
    dataset = load(isic.Ham10000, tmp_path)
    assert len(dataset) == 40 and dataset.classes == ("benign_keratosis",)
    assert [record.image_id for record in dataset.with_masks().records] == ["ISIC_1"]
    assert {record.split for record in dataset.records} == {"train", "val", "test"}
    splits_of_lesions = {(record.group, record.split) for record in dataset.records}
    assert len(splits_of_lesions) == len({group for group, _ in splits_of_lesions})


def test_ph2(tmp_path, write_image, write_mask, load):
    for name in ("IMD002", "IMD003", "IMD004"):
        case = tmp_path / "PH2Dataset" / "PH2 Dataset images" / name
        write_image(case / f"{name}_Dermoscopic_Image" / f"{name}.bmp")
        write_mask(case / f"{name}_lesion" / f"{name}_lesion.bmp", mode="1")
        write_mask(case / f"{name}_roi" / f"{name}_R1_Label4.bmp")
    (tmp_path / "PH2Dataset" / "PH2_dataset.txt").write_text(
        "||   Name   ||  Histological Diagnosis  || Clinical Diagnosis || Asymmetry | Pigment Network ||\n"
        "|| IMD002 ||              ||  0  || 0 | T ||\n|| IMD003 || Melanoma in situ ||  2  || 2 | AT ||\n\n"
        "Legends:\n\nClinical Diagnosis:\n    0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma.\n"
    )
    dataset = load(isic.Ph2, tmp_path)
    assert [record.label for record in dataset.records] == ["common_nevus", "melanoma", None]
    assert dataset.fetch([0, 1, 2]).masks.sum() == 36
    assert dataset.records[1].metadata["histological_diagnosis"] == "Melanoma in situ"
