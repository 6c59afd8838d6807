-- The closed lists as the functions of before were given them, and the kinds of logins; null where that code had none.

select nullif(current_setting('pairmill.lists', true), '')::jsonb as lists,
       string_to_array(nullif(current_setting('pairmill.worker_kinds', true), ''), ',') as worker_kinds
