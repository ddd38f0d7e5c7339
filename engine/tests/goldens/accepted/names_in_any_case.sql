create feature view CASE_VIEW as
select USER_ID, count(*) over W as N
from ORDERS
window W as (partition by User_Id order by Event_Time range between interval '1 hour' preceding and current row);
