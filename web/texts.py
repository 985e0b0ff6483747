"""The texts of the page in English and Korean, chosen by the browser's language."""

import re
from collections.abc import Mapping

# Keys must differ from those of Gradio's own texts, such as "video".
TEXTS = {
    "en": {
        "title": "Hair segmentation",
        "intro": "# Hair segmentation\n\nUpload a photo, paste one or take one with the camera. "
        "Only the machine that serves this page sees it, and deletes it when you close the page.",
        "tab_photo": "Photo",
        "tab_batch": "Multiple photos",
        "tab_video": "Video",
        "photo": "Your photo (up to {megapixels} MP, {megabytes} MB)",
        "examples": "Examples",
        "color": "Dye colour",
        "presets": "Preset colours",
        "strength": "Dye strength",
        "bleach": "Bleach: hair becomes as light or dark as the dye",
        "background": "Background of the cut-out",
        "transparent": "transparent",
        "blur": "the photo, blurred",
        "white": "white",
        "black": "black",
        "opacity": "Overlay opacity",
        "threshold": "Threshold (lower values select more hair)",
        "refine": "Refine edges with a guided filter",
        "backend": "Inference backend",
        "files": "Photos or a ZIP file of photos (up to {megabytes} MB)",
        "kinds": "Results to create",
        "start": "Start",
        "clip": "Short video (up to {seconds} seconds and {megabytes} MB)",
        "video_kind": "Result to create",
        "overlay": "overlay",
        "mask": "mask",
        "alpha": "cut-out",
        "recolor": "dyed hair",
        "palette": "all preset colours",
        "contour": "polygons (COCO)",
        "rle": "exact mask (COCO RLE)",
        "json": "measurements (JSON)",
        "shared": "The dye colour, bleach and the threshold are those of the Photo tab.",
        "summary": "Hair covers {share} of the photo. Its colour is {name}.",
        "none": "No hair found.",
        "before": "original photo",
        "after": "photo with dyed hair",
        "slide": "Before and after: drag or use the arrow keys",
        "save": "Download {kind} (PNG)",
        "nothing": "Choose photos and at least one kind of result first.",
        "no_video": "Choose a video first.",
        "no_backend": "{backend} cannot run these weights on this machine. Choose another backend.",
        "large": "{name}: the photo has {megapixels} megapixels; the limit is {most}.",
        "big_file": "{name}: the file is larger than the limit of {most} MB.",
        "unreadable": "{name}: this file cannot be read as a photo.",
        "damaged": "{name}: this photo is damaged, incomplete or of a type that cannot be read.",
        "not_saved": "{name}: the result could not be saved. Is the disk of the server full?",
        "others": "Files in the ZIP that are not photos and were skipped: {count} ({kinds}).",
        "busy": "Too many photos are being processed at the moment. Please try again in a few seconds.",
        "no_photo": "The request contains no photo.",
        "bad_zip": "{name}: this ZIP file cannot be opened.",
        "too_many": "The limit is {most} photos and {bytes} MB unpacked. The remaining photos were skipped.",
        "too_long": "{name}: the video is longer than the limit of {most} seconds.",
        "bad_video": "{name}: this file cannot be read as a video.",
        "ready": "Photos processed: {count}.",
        "video_ready": "The video is ready.",
        "download": "Download",
        "gone": "This result is no longer available. Change a setting or upload the photo again.",
        "working": "Processing {name}",
    },
    "ko": {
        "title": "머리카락 영역 분할",
        "intro": "# 머리카락 영역 분할\n\n사진을 올리거나 붙여 넣거나 카메라로 촬영하세요. "
        "사진은 이 페이지를 제공하는 컴퓨터에서만 처리되며, 페이지를 닫으면 삭제됩니다.",
        "tab_photo": "사진",
        "tab_batch": "여러 장",
        "tab_video": "동영상",
        "photo": "내 사진 ({megapixels}메가픽셀, {megabytes} MB 이하)",
        "examples": "예시 사진",
        "color": "염색할 색",
        "presets": "색상 프리셋",
        "strength": "염색 강도",
        "bleach": "탈색: 머리카락의 밝기도 염색할 색에 맞추기",
        "background": "배경 제거 이미지의 배경",
        "transparent": "투명",
        "blur": "흐린 원본 사진",
        "white": "흰색",
        "black": "검은색",
        "opacity": "오버레이 불투명도",
        "threshold": "임계값 (낮을수록 더 넓게)",
        "refine": "가이드 필터로 가장자리 다듬기",
        "backend": "추론 백엔드",
        "files": "사진 또는 사진이 담긴 ZIP 파일 ({megabytes} MB 이하)",
        "kinds": "만들 결과",
        "start": "시작",
        "clip": "짧은 동영상 ({seconds}초, {megabytes} MB 이하)",
        "video_kind": "만들 결과",
        "overlay": "오버레이",
        "mask": "마스크",
        "alpha": "배경 제거 이미지",
        "recolor": "염색 결과",
        "palette": "모든 프리셋 색상",
        "contour": "폴리곤 (COCO)",
        "rle": "정확한 마스크 (COCO RLE)",
        "json": "측정값 (JSON)",
        "shared": "염색할 색, 탈색, 임계값은 사진 탭의 설정을 따릅니다.",
        "summary": "머리카락이 사진의 {share}를 차지합니다. 색상은 {name}입니다.",
        "none": "머리카락을 찾지 못했습니다.",
        "before": "원본 사진",
        "after": "머리카락을 염색한 사진",
        "slide": "전후 비교: 드래그하거나 화살표 키를 사용하세요",
        "save": "{kind} 다운로드 (PNG)",
        "nothing": "먼저 사진과 만들 결과를 선택하세요.",
        "no_video": "먼저 동영상을 선택하세요.",
        "no_backend": "이 컴퓨터에서는 {backend} 백엔드로 이 가중치를 실행할 수 없습니다. 다른 백엔드를 선택하세요.",
        "large": "{name}: {megapixels}메가픽셀 사진입니다. {most}메가픽셀까지 처리할 수 있습니다.",
        "big_file": "{name}: 파일이 {most} MB보다 큽니다.",
        "unreadable": "{name}: 사진으로 읽을 수 없는 파일입니다.",
        "damaged": "{name}: 사진이 손상되었거나 일부가 빠졌거나 지원하지 않는 종류입니다.",
        "not_saved": "{name}: 결과를 저장하지 못했습니다. 서버의 디스크가 가득 찼는지 확인하세요.",
        "others": "ZIP 안에서 사진이 아니어서 건너뛴 파일: {count}개 ({kinds}).",
        "busy": "지금 처리 중인 사진이 너무 많습니다. 잠시 후 다시 시도해 주세요.",
        "no_photo": "요청에 사진이 없습니다.",
        "bad_zip": "{name}: 열 수 없는 ZIP 파일입니다.",
        "too_many": "사진은 {most}장, 압축을 푼 크기는 {bytes} MB까지 처리할 수 있습니다. 나머지 사진은 제외했습니다.",
        "too_long": "{name}: 동영상이 {most}초보다 깁니다.",
        "bad_video": "{name}: 동영상으로 읽을 수 없는 파일입니다.",
        "ready": "사진 {count}장을 처리했습니다.",
        "video_ready": "동영상이 준비되었습니다.",
        "download": "다운로드",
        "gone": "더 이상 제공되지 않는 결과입니다. 설정을 바꾸거나 사진을 다시 올려 주세요.",
        "working": "{name} 처리 중",
    },
}

# Names of hair.colors.HAIR_COLORS in Korean.
KOREAN_COLORS = {
    "black": "검은색",
    "dark brown": "짙은 갈색",
    "brown": "갈색",
    "light brown": "밝은 갈색",
    "auburn": "적갈색",
    "copper": "구릿빛",
    "red": "붉은색",
    "dark blond": "짙은 금발",
    "blond": "금발",
    "platinum": "백금발",
    "dark grey": "짙은 회색",
    "grey": "회색",
    "white": "흰색",
    "pink": "분홍색",
    "purple": "보라색",
    "blue": "파란색",
    "green": "초록색",
}

# Notes of `hair` on how a photo was read, in Korean.
KOREAN_NOTES = {
    r"is animated; only the first frame was read": "애니메이션입니다. 첫 번째 장면만 읽었습니다.",
    r"has several pages; only the first was read": "여러 쪽짜리 파일입니다. 첫 쪽만 읽었습니다.",
    r"contains several images; only the main one was read": "사진이 여러 장 들어 있습니다. 대표 사진만 읽었습니다.",
    r"damaged, but the image is complete": "파일이 손상되었지만 사진은 온전합니다.",
    r"read at (1/\d+) of its size: (\S+) pixels": "{0} 크기({1}픽셀)로 줄여 읽었습니다.",
    r"its colour profile is damaged .*": "색상 프로파일이 손상되었거나 맞지 않아 무시했습니다.",
    r"its HDR colours \((\w+)\) were read .*": "HDR({0}) 색상을 일반 사진의 색상으로 읽었습니다.",
    r"its EXIF cannot be read and is left out": "EXIF를 읽을 수 없어 제외했습니다.",
}


def choose_language(headers: Mapping[str, str]) -> str:
    """Choose `ko` for browsers that prefer Korean, else `en`.

    Args:
        headers: of the request; names in lower case, or of a mapping that ignores case.
    """
    return "ko" if headers.get("accept-language", "").lower().startswith("ko") else "en"


def translate_color(name: str, language: str) -> str:
    """The name of a hair colour, as `hair.colors.color_name` returns it, in the page's language."""
    return KOREAN_COLORS[name] if language == "ko" else name


def translate_note(note: str, language: str) -> str:
    """A note from `hair.photos.Photo.notes` in the page's language; in English if there is no translation."""
    if language == "ko":
        for pattern, korean in KOREAN_NOTES.items():
            if found := re.fullmatch(pattern, note):
                return korean.format(*found.groups())
    return note
