select kind, reason, count(*) as tasks from report.task where state = 'discarded'
 group by kind, reason order by tasks desc, kind, reason limit 3
