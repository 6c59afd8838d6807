select * from report.stopped order by state, tasks desc, kind, reason
