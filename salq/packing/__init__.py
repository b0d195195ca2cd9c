"""The packed format: exactly 2, 3, 4 or 8 stored bits per weight, packed zero points, float16 scales, adapters beside. See FORMAT.md."""
