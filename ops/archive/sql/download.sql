-- Of one batch: every download, in order.

select n, attempt, outcome, http_status, bytes, width, height, uuid_send(md5) as md5, sha1, sha256, dhash,
       pdq, submission_id
  from mill.download
 where batch_id = %(batch_id)s and (%(positions)s::integer[] is null or n = any (%(positions)s))
 order by n, attempt, submission_id
