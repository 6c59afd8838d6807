-- Of one extraction: its pages, in order.

select page, url from mill.page where wat_id = %(wat_id)s and submission_id = %(submission_id)s order by page
