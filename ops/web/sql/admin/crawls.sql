select case crawl when '' then 'files added alone' else crawl end as crawl, wat_files, records, links, duplicates, pairs
  from report.crawl order by crawl desc limit 200
