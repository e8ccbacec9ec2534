import './base.css';
import './charts.css';
import './log.css';
