"""Normalised URLs: one key for the spellings under which sites serve the same file.

Scheme, ``www.``, the host's case, default ports, the fragment, tracking parameters, the order of
parameters and a final ``?`` make no difference. The path keeps its case and its percent-encoding:
servers may tell those apart.
"""

# Set by senders of links, never read by the server of an image. From the lists of ClearURLs and of
# browsers that strip them (Firefox, Brave), those that name no content.
TRACKING = (
    "utm_[a-z_]+", "fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "yclid",
    "twclid", "ttclid", "igshid", "igsh", "mc_cid", "mc_eid", "_ga", "_gl", "_hsenc", "_hsmi",
    "hsctatracking", "mkt_tok", "oly_anon_id", "oly_enc_id", "vero_id", "wickedid", "srsltid",
    "li_fat_id", "ref_src", "ref_url", "s_cid", "_openstat", "ml_subscriber", "ml_subscriber_hash",
    "rb_clickid", "mtm_[a-z_]+", "pk_[a-z_]+", "piwik_[a-z_]+", "hmb_[a-z_]+", "__hstc", "__hssc",
    "__hsfp", "_branch_match_id", "spm",
)  # fmt: skip


def normalised(column: str) -> str:
    """A DuckDB expression: the normalised URL of a column of URLs, VARCHAR; NULL for NULL.

    What is no http or https URL stays as it is.
    """
    # most URLs have neither a query nor a fragment: the lists below would double their cost
    return f"""CASE
    WHEN NOT regexp_matches({column}, '^https?://', 'i') THEN {column}
    ELSE {_host(column)} || regexp_extract({column}, '^[^:]+://[^/?#]*([^?#]*)', 1)
        || CASE WHEN contains({column}, '?') THEN {_query(column)} ELSE '' END
    END"""


def _host(column: str) -> str:
    authority = f"regexp_extract({column}, '^[^:]+://([^/?#]*)', 1)"
    # :80 of https is no default, and nobody serves images there
    return rf"regexp_replace(lower({authority}), '^www\.|:(?:80|443)?$', '', 'g')"


def _query(column: str) -> str:
    query = rf"regexp_extract({column}, '^[^?#]*\?([^#]*)', 1)"
    tracking = f"^(?:{'|'.join(TRACKING)})(?:=|$)"
    return f"""coalesce('?' || nullif(array_to_string(list_sort(list_filter(
        string_split({query}, '&'),
        lambda part: part <> '' AND NOT regexp_matches(part, '{tracking}', 'i')
    )), '&'), ''), '')"""
