-- The weight of a pair's text.

-- Quarters, which sum without rounding. workers/extract/text.py has the same numbers, and says where they are from.
create function mill.text_weight(words text) returns real
language sql immutable parallel safe
as $$
    select case when octet_length(words) = length(words) then length(words)::real
                else (length(words)
                      + 2.0 * regexp_count(words, '[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]')  -- Han
                      + 0.75 * regexp_count(words, '[\uac00-\ud7a3]')  -- Hangul
                      + 0.5 * regexp_count(words, '[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d]')  -- Katakana
                      -- Hiragana, Hebrew, Ethiopic
                      + 0.25 * regexp_count(words, '[\u3041-\u3096\u309d-\u309f\u05d0-\u05ea\u1200-\u139f\u2d80-\u2ddf\uab00-\uab2f]'))::real end
$$;
comment on function mill.text_weight is 'How many Latin characters say about as much as a text: its length, or more for scripts that say more with each character.';
