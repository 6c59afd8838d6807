select * from report.discarded order by tasks desc, kind, reason
