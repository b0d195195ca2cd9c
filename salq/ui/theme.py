"""The look: Gradio's base theme in white and ink with one blue, and the files under assets/ui. No font is fetched from the network."""

from gradio.themes import Base, Color, sizes
from gradio.themes.utils.fonts import LocalFont

from salq.core.settings import ASSETS

CSS = ASSETS / "ui" / "salq.css"
MARK = ASSETS / "ui" / "mark.svg"

BLUE = Color(
    "#eff6fc", "#dcebf8", "#bcd8f0", "#8fbde4", "#5a9ad2", "#337cbb", "#1f5f9e", "#1a4f85", "#18436e", "#163859", "#0e2439", name="blue-ink"
)  # fmt: skip
INK = Color(
    "#fafbfc", "#f3f5f7", "#e4e8ec", "#cfd5dc", "#98a2ae", "#6b7683", "#4d5763", "#374049", "#222a32", "#161c23", "#0d1217", name="ink"
)  # fmt: skip

# Regular and bold: the semi-bold files that Gradio ships lack most letters.
SANS = (LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif")
MONO = (LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "Consolas", "monospace")


def theme() -> Base:
    """White page, hairline borders, one accent; info text dark enough for WCAG AA (the default's is not)."""
    return Base(
        primary_hue=BLUE, secondary_hue=BLUE, neutral_hue=INK, radius_size=sizes.radius_md, text_size=sizes.text_md, font=SANS, font_mono=MONO
    ).set(
        body_background_fill="#ffffff",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_800",
        body_text_color_dark="#e6ebf1",
        body_text_color_subdued="#566270",
        body_text_color_subdued_dark="#a3aebb",
        block_info_text_color="#566270",
        block_info_text_color_dark="#a3aebb",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="600",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="#e6ebf1",
        block_padding="6px 0px",
        form_gap_width="16px",
        border_color_primary="*neutral_300",
        border_color_primary_dark="#3a444f",
        layout_gap="14px",
        button_large_text_weight="600",
        button_small_text_weight="400",
        button_large_padding="8px 18px",
        button_large_text_size="*text_md",
        panel_background_fill="transparent",
        panel_background_fill_dark="transparent",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="#3a444f",
        input_shadow="none",
        input_shadow_focus="0 0 0 2px *primary_300",
        input_shadow_focus_dark="0 0 0 2px *primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#3a444f",
        button_border_width="1px",
        button_border_width_dark="1px",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        checkbox_label_background_fill_selected="*primary_100",
        checkbox_label_background_fill_selected_dark="*primary_900",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="*neutral_300",
        checkbox_label_border_color_dark="#3a444f",
        checkbox_label_text_color_selected="*neutral_900",
        checkbox_label_text_color_selected_dark="#e6ebf1",
        table_border_color="*neutral_200",
        table_border_color_dark="#2b343d",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
    )
