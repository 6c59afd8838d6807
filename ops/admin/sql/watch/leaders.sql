select name, urls, urls_last_day from report.leaderboard order by rank, name limit 5
